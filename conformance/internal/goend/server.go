package goend

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// patience is how long the server waits for a script before it leaves a silent client to
// the handshake timeout of streamcredit.
const patience = time.Second

// Server is the server end. The zero value is ready for use.
type Server struct {
	conformancepb.UnimplementedConformanceServiceServer
	creditpb.UnimplementedCreditStreamServer

	mu      sync.Mutex // guards the fields below
	reports map[string]chan *conformancepb.Report
}

// Register adds both services to r.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	conformancepb.RegisterConformanceServiceServer(r, s)
	creditpb.RegisterCreditStreamServer(r, s)
}

// Run is a session with embedded Control.
func (s *Server) Run(stream grpc.BidiStreamingServer[conformancepb.RunRequest, conformancepb.RunResponse]) error {
	seen, first := look(stream)
	script := orDefault(first.GetScript())
	d, _, err := streamcredit.Serve(seen, options(script)...)
	if err != nil {
		return s.refused(script, err)
	}
	return s.play(stream.Context(), script, of(d, responses))
}

// Channel is a session in Frames.
func (s *Server) Channel(stream grpc.BidiStreamingServer[creditpb.Frame, creditpb.Frame]) error {
	seen, first := look(stream)
	var script conformancepb.Script
	if first.GetPiggyback().GetOpen() != nil {
		if err := proto.Unmarshal(first.GetData(), &script); err != nil {
			return err
		}
	}
	d, _, err := streamcredit.ServeFrames(seen, options(orDefault(&script))...)
	if err != nil {
		return s.refused(&script, err)
	}
	return s.play(stream.Context(), &script, of(d, encoded))
}

// orDefault returns the script, or the default script if it is empty.
func orDefault(s *conformancepb.Script) *conformancepb.Script {
	if s == nil {
		s = &conformancepb.Script{}
	}
	if s.GetSend() == nil && s.GetReceive() == nil {
		s.Send = &conformancepb.Send{Ending: conformancepb.Ending_ENDING_NOTHING}
		s.Receive = &conformancepb.Receive{Window: 16}
	}
	return s
}

func (s *Server) play(ctx context.Context, script *conformancepb.Script, e *end) error {
	report, err := play(ctx, script, e, ctx.Done())
	s.keep(report)
	return err
}

// refused keeps the report of a session that could not begin.
func (s *Server) refused(script *conformancepb.Script, err error) error {
	s.keep(&conformancepb.Report{Id: script.GetId(), Sending: ending(err), Receiving: ending(err)})
	return err
}

func (s *Server) keep(r *conformancepb.Report) {
	if r.GetId() != "" {
		s.report(r.GetId()) <- r
	}
}

// report returns the channel for the report of a session. It has room for that report.
func (s *Server) report(id string) chan *conformancepb.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reports == nil {
		s.reports = map[string]chan *conformancepb.Report{}
	}
	if s.reports[id] == nil {
		s.reports[id] = make(chan *conformancepb.Report, 1)
	}
	return s.reports[id]
}

// Outcome returns the report of a session once. It blocks until the session is over.
func (s *Server) Outcome(ctx context.Context, req *conformancepb.OutcomeRequest) (*conformancepb.OutcomeResponse, error) {
	select {
	case r := <-s.report(req.GetId()):
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.reports, req.GetId())
		return &conformancepb.OutcomeResponse{Report: r}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// A seen stream is a stream after look has read its first message. Recv still returns that message. The
// options of streamcredit depend on the script, so they must be known before streamcredit reads it.
type seen[Req, Res any] struct {
	grpc.BidiStreamingServer[Req, Res]

	first chan message[Req] // has a buffer of one
	taken bool
}

type message[Req any] struct {
	m   *Req
	err error
}

// look reads the first message. It returns nil for it if none comes within patience.
func look[Req, Res any](stream grpc.BidiStreamingServer[Req, Res]) (*seen[Req, Res], *Req) {
	s := &seen[Req, Res]{BidiStreamingServer: stream, first: make(chan message[Req], 1)}
	go func() { // ends at the latest when the stream ends
		m, err := stream.Recv()
		s.first <- message[Req]{m, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case first := <-s.first:
		s.first <- first
		return s, first.m
	case <-timer.C:
		return s, nil
	}
}

func (s *seen[Req, Res]) Recv() (*Req, error) {
	if !s.taken {
		s.taken = true
		first := <-s.first
		return first.m, first.err
	}
	return s.BidiStreamingServer.Recv()
}
