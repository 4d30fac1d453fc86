package nats_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/brokertest"
	weirnats "github.com/weir-go/weir/broker/nats"
)

// serverDir tells the test binary to be a NATS server with its data there, so that a test
// can kill it.
const serverDir = "WEIR_NATS_SERVER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverDir); dir != "" {
		if err := beServer(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	if err := flag.Set("test.parallel", "8"); err != nil { // the checks wait most of the time
		panic(err)
	}
	os.Exit(m.Run())
}

// beServer serves until standard input ends.
func beServer(dir string) error {
	s, err := newServer(dir)
	if err != nil {
		return err
	}
	fmt.Println(s.ClientURL())
	_, err = io.Copy(io.Discard, os.Stdin)
	s.Shutdown()
	return err
}

func newServer(dir string) (*server.Server, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: dir, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(20 * time.Second) {
		return nil, errors.New("nats-server is not ready")
	}
	return s, nil
}

// A natsServer is a server in a process of its own. It implements brokertest.Server.
type natsServer struct {
	dir string

	mu  sync.Mutex
	cmd *exec.Cmd
	url string
	nc  *nats.Conn
	js  jetstream.JetStream
}

func startServer(t testing.TB) *natsServer {
	t.Helper()
	s := &natsServer{dir: t.TempDir()}
	t.Cleanup(func() { _ = s.Stop() })
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *natsServer) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	program, err := os.Executable()
	if err != nil {
		return err
	}
	s.cmd = exec.Command(program)
	s.cmd.Env = append(os.Environ(), serverDir+"="+s.dir)
	s.cmd.Stderr = os.Stderr
	if _, err := s.cmd.StdinPipe(); err != nil { // ends with this process
		return err
	}
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return fmt.Errorf("nats-server did not start: %w", err)
	}
	s.url = strings.TrimSpace(line)
	if s.nc, err = nats.Connect(s.url); err != nil {
		return err
	}
	s.js, err = jetstream.New(s.nc)
	return err
}

func (s *natsServer) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.nc != nil {
		s.nc.Close()
	}
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	return err
}

func (s *natsServer) Addr() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, err := url.Parse(s.url)
	if err != nil {
		return ""
	}
	return u.Host
}

func (s *natsServer) stream() jetstream.JetStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.js
}

// worker is the name of the durable consumer of each queue.
const worker = "worker"

func (s *natsServer) Create(ctx context.Context, queue string, c brokertest.QueueConfig) error {
	js := s.stream()
	for name, subject := range map[string]string{queue: queue + ".>", queue + "-dead": "dead." + queue} {
		if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{subject}}); err != nil {
			return err
		}
	}
	_, err := js.CreateConsumer(ctx, queue, jetstream.ConsumerConfig{
		Durable: worker, AckPolicy: jetstream.AckExplicitPolicy, AckWait: c.AckTimeout,
	})
	return err
}

func (s *natsServer) Publish(ctx context.Context, queue string, msgs ...broker.Message) error {
	js := s.stream()
	acks := make([]jetstream.PubAckFuture, len(msgs))
	for i := range msgs {
		key := msgs[i].Key
		if key == "" {
			key = "none"
		}
		m := nats.NewMsg(queue + "." + key)
		m.Data = msgs[i].Body
		for name, value := range msgs[i].Attributes {
			m.Header.Set(name, value)
		}
		var err error
		if acks[i], err = js.PublishMsgAsync(m); err != nil {
			return err
		}
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Counts asks for the state of the consumer. The server counts a message that was given
// back as unacknowledged until it is delivered and acknowledged.
func (s *natsServer) Counts(ctx context.Context, queue string) (brokertest.Counts, error) {
	c, err := s.stream().Consumer(ctx, queue, worker)
	if err != nil {
		return brokertest.Counts{}, err
	}
	info := c.CachedInfo()
	return brokertest.Counts{Ready: int(info.NumPending), Unacked: info.NumAckPending}, nil
}

func (s *natsServer) DeadLetters(ctx context.Context, queue string) (dead []brokertest.DeadLetter, err error) {
	stream, err := s.stream().Stream(ctx, queue+"-dead")
	if err != nil {
		return nil, err
	}
	for i := range stream.CachedInfo().State.Msgs {
		m, err := stream.GetMsg(ctx, i+1)
		if err != nil {
			return nil, err
		}
		dead = append(dead, brokertest.DeadLetter{Body: m.Data, Reason: m.Header.Get(weirnats.HeaderReason)})
	}
	return dead, nil
}

// connect connects as a program that runs for long should.
func connect(addr string) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect("nats://"+addr, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ReconnectJitter(0, 0), nats.DontRandomize(), nats.IgnoreDiscoveredServers())
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc)
	return nc, js, err
}

// A connected source closes its connection, too.
type connected struct {
	broker.Source
	nc *nats.Conn
}

func (c connected) Close(ctx context.Context) error {
	err := c.Source.Close(ctx)
	c.nc.Close()
	return err
}

func open(ctx context.Context, c brokertest.Consumer) (broker.Source, error) {
	nc, js, err := connect(c.Addr)
	if err != nil {
		return nil, err
	}
	source, err := weirnats.Open(ctx, js, weirnats.Config{Stream: c.Queue, Consumer: worker, DeadLetter: "dead." + c.Queue})
	if err != nil {
		nc.Close()
		return nil, err
	}
	return connected{source, nc}, nil
}

func describe() brokertest.Broker {
	return brokertest.Broker{
		Start:        func(t testing.TB) brokertest.Server { return startServer(t) },
		Open:         open,
		AckTimeout:   time.Second,
		LargeBody:    900 << 10, // the server's own bound is 1 MiB
		IdleRequests: 2,
		RestRequests: 1, // the answer to the server's first PING, 2 s after the connect
	}
}

func TestConformance(t *testing.T) { brokertest.Run(t, describe()) }
