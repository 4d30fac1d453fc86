// Package program is the implementation of the program conformance.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"regexp"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	"github.com/weir-go/weir/conformance/internal/goend"
	"github.com/weir-go/weir/conformance/internal/rules"
)

// The exit codes of the program.
const (
	ExitOK = iota
	ExitFailed
	ExitUsage
)

// flags are the flags of the command line.
type flags struct {
	target, listen, serve, connect string
	pattern                        string
	config                         rules.Config
	explain                        bool
}

// Run runs the program with args and returns its exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var f flags
	set := flag.NewFlagSet("conformance", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.target, "target", "", "check the server at this address")
	set.StringVar(&f.listen, "listen", "", "check clients that call this address, and print it first; port 0 means any")
	set.StringVar(&f.serve, "serve", "", "run weir's server end at this address, and print it first; port 0 means any")
	set.StringVar(&f.connect, "connect", "", "run weir's client end against the suite at this address")
	set.StringVar(&f.pattern, "run", "", "check only rules with a matching name, such as server/frames/43_batches")
	set.IntVar(&f.config.Part, "part", 1, "divide the number of repetitions in each rule by this")
	set.DurationVar(&f.config.Settle, "settle", 100*time.Millisecond, "wait this long before deciding that no message comes")
	set.BoolVar(&f.explain, "explain", false, "print the property that each rule proves, and check nothing")
	if err := set.Parse(args); err != nil {
		return ExitUsage
	}
	pattern, err := regexp.Compile(f.pattern)
	if err == nil {
		s := &suite{out: stdout, pattern: pattern, config: f.config}
		err = f.do(ctx, s)
		code = s.code()
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "conformance:", err)
		return ExitUsage
	}
	return code
}

// do runs the mode that the flags select.
func (f flags) do(ctx context.Context, s *suite) error {
	switch {
	case f.explain:
		s.explain()
		return nil
	case f.serve != "":
		return serve(ctx, f.serve, s.listening)
	case f.connect != "":
		return withConn(f.connect, func(conn *grpc.ClientConn) error { return goend.Drive(ctx, conn) })
	case f.target != "":
		return checkServer(ctx, f.target, s)
	case f.listen != "":
		return checkClients(ctx, f.listen, s, s.listening)
	}
	return checkItself(ctx, s)
}

// A suite checks rules and prints the results. It is safe for concurrent use.
type suite struct {
	pattern *regexp.Regexp
	config  rules.Config

	mu     sync.Mutex // guards the fields below
	out    io.Writer
	failed int
}

func (s *suite) code() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed > 0 {
		return ExitFailed
	}
	return ExitOK
}

func (s *suite) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.out, format+"\n", args...)
}

// listening prints the address at which the program listens.
func (s *suite) listening(addr string) error {
	s.printf("listening at %s", addr)
	return nil
}

// explain prints the number, the name and the property of each rule.
func (s *suite) explain() {
	for _, r := range rules.All() {
		s.printf("%2d %s\n   %s", r.Number, r.Name, r.Proves)
	}
}

// both checks an end with both envelopes at the same time, because the rules spend much of their time waiting.
func (s *suite) both(ctx context.Context, name string, embedded, framed rules.Target) {
	var wg sync.WaitGroup
	wg.Go(func() { s.check(ctx, name+"/embedded", embedded) })
	wg.Go(func() { s.check(ctx, name+"/frames", framed) })
	wg.Wait()
}

// check checks all rules against one end.
func (s *suite) check(ctx context.Context, name string, target rules.Target) {
	for _, r := range rules.All() {
		full := name + "/" + r.Title()
		if !s.pattern.MatchString(full) || ctx.Err() != nil {
			continue
		}
		result := rules.Check(ctx, r, target, s.config)
		switch {
		case result.Err != nil:
			s.printf("FAIL %s: %v", full, result.Err)
			s.mu.Lock()
			s.failed++
			s.mu.Unlock()
		case result.Skipped != "":
			s.printf("n/a  %s: %s", full, result.Skipped)
		default:
			s.printf("ok   %s", full)
		}
	}
}

// checkServer checks the server at that address.
func checkServer(ctx context.Context, addr string, s *suite) error {
	return withConn(addr, func(conn *grpc.ClientConn) error {
		s.both(ctx, "server", rules.ServerEnd{Conn: conn}, rules.ServerEnd{Conn: conn, Framed: true})
		return ctx.Err()
	}, rules.DialOptions()...)
}

func withConn(addr string, f func(*grpc.ClientConn) error, opts ...grpc.DialOption) error {
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the calls have ended
	return f(conn)
}

// grace is the time that clients under test have to leave at the end.
const grace = 5 * time.Second

// checkClients checks clients that call the given address. It calls ready when it listens.
func checkClients(ctx context.Context, addr string, s *suite, ready func(addr string) error) error {
	clients := rules.NewClients()
	var visits visits
	server := grpc.NewServer(append(rules.ServerOptions(), grpc.StatsHandler(&visits))...)
	clients.Register(server)
	stop, err := start(ctx, server, addr, ready)
	if err != nil {
		return err
	}
	s.both(ctx, "client", clients.End(false), clients.End(true))
	clients.Close()
	visits.wait(ctx, grace) // a loop of a client may still have to learn that there are no more scripts
	server.Stop()
	if err := stop(); err != nil {
		return err
	}
	return ctx.Err()
}

// visits counts the connections of a server. It implements stats.Handler.
type visits struct {
	mu   sync.Mutex // guards the fields below
	open int
	left chan struct{} // closed when open falls to 0; nil if no goroutine waits
}

// wait waits until no connection is open, but at most for d or until ctx ends.
func (v *visits) wait(ctx context.Context, d time.Duration) {
	v.mu.Lock()
	left := make(chan struct{})
	if v.left = left; v.open == 0 {
		close(left)
		v.left = nil
	}
	v.mu.Unlock()
	select {
	case <-left:
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (v *visits) HandleConn(_ context.Context, event stats.ConnStats) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch event.(type) {
	case *stats.ConnBegin:
		v.open++
	case *stats.ConnEnd:
		v.open--
	}
	if v.open == 0 && v.left != nil {
		close(v.left)
		v.left = nil
	}
}

func (*visits) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*visits) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*visits) HandleRPC(context.Context, stats.RPCStats)                         {}

// serve runs weir's server end until ctx ends. It calls ready when it listens.
func serve(ctx context.Context, addr string, ready func(addr string) error) error {
	server := grpc.NewServer()
	new(goend.Server).Register(server)
	stop, err := start(ctx, server, addr, ready)
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Stop()
	return stop()
}

// start makes the server serve. stop waits until it has stopped.
func start(ctx context.Context, server *grpc.Server, addr string, ready func(addr string) error) (stop func() error, err error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // stop waits for it
	stop = func() error {
		if err := <-served; !errors.Is(err, grpc.ErrServerStopped) { // Serve returns it if the server was stopped first
			return err
		}
		return nil
	}
	if err := ready(l.Addr().String()); err != nil {
		server.Stop()
		return nil, fmt.Errorf("%w, %w", err, stop())
	}
	return stop, nil
}

// checkItself checks weir's own ends of all kinds at once, over sockets.
func checkItself(ctx context.Context, s *suite) error {
	const anyPort = "127.0.0.1:0"
	server := grpc.NewServer()
	new(goend.Server).Register(server)
	var addr string
	stop, err := start(ctx, server, anyPort, func(a string) error { addr = a; return nil })
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() { errs[0] = checkServer(ctx, addr, s) })
	wg.Go(func() {
		errs[1] = checkClients(ctx, anyPort, s, func(suiteAddr string) error {
			wg.Go(func() { // if it fails, the rules report it
				_ = withConn(suiteAddr, func(conn *grpc.ClientConn) error { return goend.Drive(ctx, conn) })
			})
			return nil
		})
	})
	wg.Wait()
	server.Stop()
	for _, err := range append(errs[:], stop()) {
		if err != nil {
			return err
		}
	}
	return nil
}
