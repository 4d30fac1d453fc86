package rules

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A Target is an end under test.
type Target interface {
	// Kind returns the kind of the end, as ServerEnds or ClientEnds with Embedded or Framed.
	Kind() Ends
	// begin begins a session in which the end plays the script. When it returns, a client has sent its first
	// message, and no other message was sent.
	begin(ctx context.Context, script *conformancepb.Script) (*line, error)
}

// A line is the suite's end of a stream.
type line struct {
	stream   stream
	greeting *Message // the first message of a client end, nil for a server end

	half   func() error                                             // half-closes the suite's client; nil on the suite's server
	hang   func(err error)                                          // ends the stream; a client cancels, a server returns err
	report func(ctx context.Context) (*conformancepb.Report, error) // blocks until there is one; nil if the end makes none
}

type stream interface {
	Context() context.Context
	SendMsg(m any) error
	RecvMsg(m any) error
}

// The methods of both envelopes.
const (
	embeddedMethod = conformancepb.ConformanceService_Run_FullMethodName
	framedMethod   = creditpb.CreditStream_Channel_FullMethodName
)

// A ServerEnd is a server under test.
type ServerEnd struct {
	// Conn is a connection to the server. It must be made with DialOptions.
	Conn grpc.ClientConnInterface
	// Framed selects Frames instead of embedded Control.
	Framed bool
}

// Kind implements Target.
func (s ServerEnd) Kind() Ends { return kindOf(ServerEnds, s.Framed) }

func kindOf(side Ends, framed bool) Ends {
	if framed {
		return side | Framed
	}
	return side | Embedded
}

func (s ServerEnd) begin(ctx context.Context, script *conformancepb.Script) (*line, error) {
	ctx, cancel := context.WithCancel(ctx)
	method := embeddedMethod
	if s.Framed {
		method = framedMethod
	}
	both := &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}
	call, err := s.Conn.NewStream(ctx, both, method)
	if err != nil {
		cancel()
		return nil, err
	}
	return &line{
		stream: call, half: call.CloseSend,
		hang: func(error) { cancel() },
		report: func(ctx context.Context) (*conformancepb.Report, error) {
			q := &conformancepb.OutcomeRequest{Id: script.GetId()}
			res, err := conformancepb.NewConformanceServiceClient(s.Conn).Outcome(ctx, q)
			if status.Code(err) == codes.Unimplemented {
				return nil, nil //nolint:nilnil // the server makes no reports
			}
			return res.GetReport(), err
		},
	}, nil
}

// Clients are the clients under test that call the suite's server. Register it, and give
// the server ServerOptions. It is safe for concurrent use.
type Clients struct {
	conformancepb.UnimplementedConformanceServiceServer
	creditpb.UnimplementedCreditStreamServer

	work chan *errand
	over chan struct{}

	mu      sync.Mutex // guards the fields below
	errands map[string]*errand
}

// An errand is a script for a client under test.
type errand struct {
	script *conformancepb.Script
	framed bool
	lines  chan *line                 // the stream that the client opened; has a buffer of one
	report chan *conformancepb.Report // has a buffer of one
}

// NewClients returns a server that no client has called yet.
func NewClients() *Clients {
	return &Clients{work: make(chan *errand), over: make(chan struct{}), errands: map[string]*errand{}}
}

// smallWindow is HTTP/2's default window, in bytes. It fills soon if an end waits for its peer before it
// reads.
const smallWindow = 65535

// ServerOptions returns the options that the suite's server needs.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ForceServerCodecV2(codec{encoding.GetCodecV2("proto")}), grpc.MaxRecvMsgSize(largest),
		grpc.StaticStreamWindowSize(smallWindow),
	}
}

// DialOptions returns the options that the suite's client needs.
func DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(codec{encoding.GetCodecV2("proto")}), grpc.MaxCallRecvMsgSize(largest)),
		grpc.WithStaticStreamWindowSize(smallWindow),
	}
}

// largest is the largest message that the suite receives, in bytes. It is larger than any that the suite asks
// for.
const largest = 16 << 20

// Register adds the suite's services to r.
func (c *Clients) Register(r grpc.ServiceRegistrar) {
	conformancepb.RegisterConformanceServiceServer(r, c)
	creditpb.RegisterCreditStreamServer(r, c)
}

// Close tells all current and later clients that there are no more scripts. It must be called only once.
func (c *Clients) Close() { close(c.over) }

// End returns the clients as a target with Frames or embedded Control.
func (c *Clients) End(framed bool) Target { return clientEnd{c, framed} }

type clientEnd struct {
	clients *Clients
	framed  bool
}

func (e clientEnd) Kind() Ends { return kindOf(ClientEnds, e.framed) }

func (e clientEnd) begin(ctx context.Context, script *conformancepb.Script) (*line, error) {
	c := e.clients
	work := &errand{script: script, framed: e.framed, lines: make(chan *line, 1), report: make(chan *conformancepb.Report, 1)}
	c.mu.Lock()
	c.errands[script.GetId()] = work
	c.mu.Unlock()
	select {
	case c.work <- work:
	case <-ctx.Done():
		return nil, fmt.Errorf("no client called Next for another script: %w", ctx.Err())
	}
	select {
	case l := <-work.lines:
		l.report = func(ctx context.Context) (*conformancepb.Report, error) {
			select {
			case r := <-work.report:
				return r, nil
			case <-ctx.Done():
				return nil, errors.New("no client called Next with a report of that script")
			}
		}
		return l, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("no client opened a stream for script %s: %w", script.GetId(), ctx.Err())
	}
}

// Next takes a client's report on its last script and returns the next one. It blocks until there is one.
func (c *Clients) Next(ctx context.Context, req *conformancepb.NextRequest) (*conformancepb.NextResponse, error) {
	if r := req.GetPrevious(); r != nil {
		c.mu.Lock()
		if work := c.errands[r.GetId()]; work != nil {
			delete(c.errands, r.GetId())
			work.report <- r
		}
		c.mu.Unlock()
	}
	select {
	case work := <-c.work:
		return &conformancepb.NextResponse{Script: work.script, Framed: work.framed}, nil
	case <-c.over:
		return &conformancepb.NextResponse{Done: true}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// Run serves a stream with embedded Control.
func (c *Clients) Run(stream conformancepb.ConformanceService_RunServer) error {
	return c.take(stream, toClient{})
}

// Channel serves a stream of Frames.
func (c *Clients) Channel(stream creditpb.CreditStream_ChannelServer) error {
	return c.take(stream, frames{})
}

// take hands a stream to the rule that waits for it. It returns when that rule ends the stream.
func (c *Clients) take(s stream, as envelope) error {
	first := as.fresh()
	if err := s.RecvMsg(first); err != nil {
		return err
	}
	m := as.unwrap(first)
	c.mu.Lock()
	work := c.errands[m.Script.GetId()]
	c.mu.Unlock()
	if work == nil {
		return status.Errorf(codes.InvalidArgument, "got %v, want Open with the script that Next returned", m)
	}
	end := make(chan error, 1)
	select {
	case work.lines <- &line{stream: s, greeting: &m, hang: func(err error) { end <- err }}:
	default:
		return status.Errorf(codes.InvalidArgument, "got a second stream for script %s, want one", m.Script.GetId())
	}
	return <-end
}
