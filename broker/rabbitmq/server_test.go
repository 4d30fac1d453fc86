package rabbitmq_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker/internal/servertest"
)

// program is where Debian has the server.
const program = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// A server is a RabbitMQ of its own, which listens on loopback only. It has its own epmd,
// so that it disturbs no other.
type server struct {
	dir   string
	epmd  *exec.Cmd
	count *counter

	port, epmdPort, distPort int

	out *os.File

	mu    sync.Mutex // guards the fields below
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has ended
	conn  *amqp.Connection
}

var shared struct {
	once sync.Once
	*server
	err error
}

// TestMain ends the server that the tests share.
func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		shared.shut()
	}
	os.Exit(code)
}

// serve returns the server that all tests share. It skips the test if there is none.
func serve(t testing.TB) *server {
	t.Helper()
	_, missing := exec.LookPath(program)
	servertest.Require(t, "RabbitMQ (Debian's package rabbitmq-server)", missing)
	shared.once.Do(func() { shared.server, shared.err = newServer() })
	if shared.err != nil {
		t.Fatalf("start RabbitMQ: %v", shared.err)
	}
	return shared.server
}

func newServer() (*server, error) {
	dir, err := os.MkdirTemp("", "weir-rabbit")
	if err != nil {
		return nil, err
	}
	s := &server{dir: dir}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	s.port, s.epmdPort, s.distPort = ports[0], ports[1], ports[2]
	for name, text := range map[string]string{
		"plugins":       "[].\n",
		"rabbitmq.conf": "vm_memory_high_watermark.absolute = 512MiB\ndisk_free_limit.absolute = 10MB\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return nil, err
		}
	}
	if s.out, err = os.Create(filepath.Join(dir, "out")); err != nil {
		return nil, err
	}
	s.epmd = s.command("epmd", "-address", "127.0.0.1", "-port", strconv.Itoa(s.epmdPort))
	if err := s.epmd.Start(); err != nil {
		return nil, err
	}
	if s.count, err = newCounter(s.direct()); err != nil {
		return nil, err
	}
	err = s.start()
	return s, err
}

func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}

// command returns a command that dies with the test.
func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, s.out, s.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Env = append(os.Environ(), "HOME="+s.dir)
	return cmd
}

// start starts the server on what is on its disk, and waits until it answers.
func (s *server) start() error {
	cmd := s.command(program)
	for name, value := range map[string]string{
		"BASE": s.dir, "MNESIA_BASE": s.dir + "/mnesia", "LOG_BASE": s.dir + "/log", "LOGS": "-",
		"NODENAME": s.node(), "NODE_IP_ADDRESS": "127.0.0.1", "NODE_PORT": strconv.Itoa(s.port),
		"DIST_PORT": strconv.Itoa(s.distPort), "CONFIG_FILE": s.dir + "/rabbitmq", "CONF_ENV_FILE": "/dev/null",
		"ENABLED_PLUGINS_FILE": s.dir + "/plugins", "PID_FILE": s.dir + "/pid",
		"SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}",
	} {
		cmd.Env = append(cmd.Env, "RABBITMQ_"+name+"="+value)
	}
	cmd.Env = append(cmd.Env, s.ports()...)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // it is killed, or answers finds its output
	}()
	s.mu.Lock()
	s.cmd, s.ended = cmd, ended
	s.mu.Unlock()
	return s.answers(ended, 3*time.Minute)
}

// answers waits until a client can log in.
func (s *server) answers(ended <-chan struct{}, limit time.Duration) error {
	timeout := time.After(limit)
	for {
		conn, err := amqp.Dial(s.url(s.direct()))
		if err == nil {
			return conn.Close()
		}
		select {
		case <-time.After(50 * time.Millisecond):
			continue
		case <-ended:
			err = errors.New("the server has ended")
		case <-timeout:
		}
		out, _ := os.ReadFile(s.out.Name())
		return fmt.Errorf("no answer: %w\n%s", err, out[max(0, len(out)-3000):])
	}
}

func (s *server) direct() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

func (s *server) node() string { return fmt.Sprintf("weir%d@localhost", s.port) }

// ports are the variables that lead to the server's own epmd.
func (s *server) ports() []string {
	return []string{"ERL_EPMD_PORT=" + strconv.Itoa(s.epmdPort), "ERL_EPMD_ADDRESS=127.0.0.1"}
}

func (*server) url(addr string) string { return "amqp://guest:guest@" + addr + "/" }

// signal sends a signal to all processes of the server.
func (s *server) signal(sig syscall.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return syscall.Kill(-s.cmd.Process.Pid, sig)
}

// crash ends the server as a power failure does.
func (s *server) crash() error {
	err := s.signal(syscall.SIGKILL)
	s.mu.Lock()
	ended := s.ended
	s.mu.Unlock()
	<-ended
	return err
}

// shut ends everything and removes the files.
func (s *server) shut() {
	if s.cmd != nil {
		_ = s.crash()
	}
	if s.epmd != nil && s.epmd.Process != nil {
		_ = s.epmd.Process.Kill()
		_ = s.epmd.Wait()
	}
	if s.count != nil {
		_ = s.count.Close()
	}
	if s.epmd != nil {
		_ = os.RemoveAll(s.dir)
	}
}

// eval has the server evaluate Erlang expressions. rabbitmqctl would do, and need seconds.
func (s *server) eval(t testing.TB, expressions string) {
	t.Helper()
	cookie, err := os.ReadFile(filepath.Join(s.dir, ".erlang.cookie"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := s.command("erl_call", "-c", string(cookie), "-n", s.node(), "-e")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(expressions+"\n"), nil, nil
	cmd.Env = append(cmd.Env, s.ports()...)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "{ok, ") {
		t.Fatalf("evaluate %q: %v\n%s", expressions, err, out)
	}
}

// with calls f with a channel to the server that no proxy disturbs.
func (s *server) with(ctx context.Context, f func(*amqp.Channel) error) error {
	ch, err := s.admin()
	if err != nil {
		return err
	}
	defer ch.Close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return f(ch)
}

// admin opens a channel on a connection that lasts as long as the server does.
func (s *server) admin() (*amqp.Channel, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.conn.IsClosed() {
		conn, err := amqp.DialConfig(s.url(s.direct()), amqp.Config{Heartbeat: time.Minute})
		if err != nil {
			return nil, err
		}
		s.conn = conn
	}
	return s.conn.Channel()
}
