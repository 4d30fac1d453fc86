// Program conformance checks ends of the credit protocol against its rules, from outside, by
// speaking raw messages with them. What an end under test has to offer is in
// proto/weir/conformance/v1/conformance.proto.
//
//	go run ./conformance                     weir itself, both ends of it
//	go run ./conformance -target HOST:PORT   a server under test, in any language
//	go run ./conformance -listen HOST:PORT   clients under test, which call the suite there
//	go run ./conformance -serve HOST:PORT    be weir's server, for other suites
//	go run ./conformance -connect HOST:PORT  be weir's client, likewise
//
// It prints a line for each rule, and exits with 1 if a rule failed, 2 if it could not be run.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"regexp"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/conformance/internal/goend"
	"github.com/weir-go/weir/conformance/rules"
)

// What the program exits with.
const (
	exitOK = iota
	exitFailed
	exitUsage
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// flags are what the command line says.
type flags struct {
	target, listen, serve, connect string
	pattern                        string
	part                           int
	explain                        bool
}

// run is the program.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (code int) {
	var f flags
	set := flag.NewFlagSet("conformance", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&f.target, "target", "", "check the server at this address")
	set.StringVar(&f.listen, "listen", "", "check clients that call this address")
	set.StringVar(&f.serve, "serve", "", "be weir's server end at this address")
	set.StringVar(&f.connect, "connect", "", "be weir's client end, of the suite at this address")
	set.StringVar(&f.pattern, "run", "", "check only rules whose names, such as server/frames/43_batches, match")
	set.IntVar(&f.part, "part", 1, "divide how often rules do what they do many times by this")
	set.BoolVar(&f.explain, "explain", false, "print what each rule proves, and check nothing")
	if err := set.Parse(args); err != nil {
		return exitUsage
	}
	pattern, err := regexp.Compile(f.pattern)
	if err == nil {
		s := &suite{out: stdout, pattern: pattern, config: rules.Config{Part: f.part}}
		err = f.do(ctx, s)
		code = s.code()
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "conformance:", err)
		return exitUsage
	}
	return code
}

// do does one of the things that the program can do.
func (f flags) do(ctx context.Context, s *suite) error {
	switch {
	case f.explain:
		s.explain()
		return nil
	case f.serve != "":
		return serve(ctx, f.serve)
	case f.connect != "":
		return withConn(f.connect, func(conn *grpc.ClientConn) error { return goend.Drive(ctx, conn) })
	case f.target != "":
		return checkServer(ctx, f.target, s)
	case f.listen != "":
		return checkClients(ctx, f.listen, s, func(string) error { return nil })
	}
	return checkItself(ctx, s)
}

// A suite checks rules and prints the results. It is safe for concurrent use.
type suite struct {
	pattern *regexp.Regexp
	config  rules.Config

	mu      sync.Mutex // guards what follows
	out     io.Writer
	checked int
	failed  int
}

func (s *suite) code() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed > 0 {
		return exitFailed
	}
	return exitOK
}

func (s *suite) printf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.out, format+"\n", args...)
}

// explain prints what each rule proves.
func (s *suite) explain() {
	for _, r := range rules.All() {
		s.printf("%2d %s\n   %s", r.Number, r.Name, r.Proves)
	}
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
		case result.Skipped != "":
			s.printf("n/a  %s: %s", full, result.Skipped)
		default:
			s.printf("ok   %s", full)
		}
		s.mu.Lock()
		s.checked++
		if result.Err != nil {
			s.failed++
		}
		s.mu.Unlock()
	}
}

// checkServer checks the server at that address.
func checkServer(ctx context.Context, addr string, s *suite) error {
	return withConn(addr, func(conn *grpc.ClientConn) error {
		s.check(ctx, "server/embedded", rules.ServerEnd{Conn: conn})
		s.check(ctx, "server/frames", rules.ServerEnd{Conn: conn, Framed: true})
		return ctx.Err()
	}, rules.DialOptions()...)
}

func withConn(addr string, f func(*grpc.ClientConn) error, opts ...grpc.DialOption) error {
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // all is said
	return f(conn)
}

// grace is how long clients under test have to leave at the end.
const grace = 5 * time.Second

// checkClients checks clients that call the given address. Once it listens it calls ready.
func checkClients(ctx context.Context, addr string, s *suite, ready func(addr string) error) error {
	clients := rules.NewClients()
	server := grpc.NewServer(rules.ServerOptions()...)
	clients.Register(server)
	stop, err := start(ctx, server, addr, ready)
	if err != nil {
		return err
	}
	s.check(ctx, "client/embedded", clients.End(false))
	s.check(ctx, "client/frames", clients.End(true))
	clients.Close()
	hurry := time.AfterFunc(grace, server.Stop)
	defer hurry.Stop()
	server.GracefulStop()
	if err := stop(); err != nil {
		return err
	}
	return ctx.Err()
}

// serve is weir's server, until ctx ends.
func serve(ctx context.Context, addr string) error {
	server := grpc.NewServer()
	new(goend.Server).Register(server)
	stop, err := start(ctx, server, addr, func(string) error { return nil })
	if err != nil {
		return err
	}
	<-ctx.Done()
	server.Stop()
	return stop()
}

// start has the server serve. stop waits until it has ended.
func start(ctx context.Context, server *grpc.Server, addr string, ready func(addr string) error) (stop func() error, err error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }() // stop waits for it
	stop = func() error { return <-served }
	if err := ready(l.Addr().String()); err != nil {
		server.Stop()
		return nil, fmt.Errorf("%w, %w", err, stop())
	}
	return stop, nil
}

// checkItself checks weir's own ends, over sockets, all kinds at once.
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
	var errs [3]error
	wg.Go(func() { errs[0] = checkServer(ctx, addr, s) })
	wg.Go(func() {
		errs[1] = checkClients(ctx, anyPort, s, func(suiteAddr string) error {
			wg.Go(func() {
				errs[2] = withConn(suiteAddr, func(conn *grpc.ClientConn) error { return goend.Drive(ctx, conn) })
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
