// Package quickstart_test builds the two programs and runs them against each
// other, as a reader of the README does.
package quickstart_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// build builds one of the programs and returns where it is.
func build(t *testing.T, program string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), program)
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", file, "./"+program).CombinedOutput()
	if err != nil {
		t.Fatalf("go build ./%s: got %v, want no error\n%s", program, err, out)
	}
	return file
}

// A server is the program ./server while it runs.
type server struct {
	cmd           *exec.Cmd
	log           *bufio.Reader
	addr, metrics string
}

var serving = regexp.MustCompile(`gRPC on (\S+), (http://\S+/metrics)\n$`)

// start runs ./server on free ports, and waits until it says that it serves.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	args = append([]string{"-addr", "127.0.0.1:0", "-metrics", "127.0.0.1:0"}, args...)
	cmd := exec.CommandContext(t.Context(), build(t, "server"), args...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Wait() }) // killed by now if the test did not stop it
	s := &server{cmd: cmd, log: bufio.NewReader(stderr)}
	line, err := s.log.ReadString('\n')
	where := serving.FindStringSubmatch(line)
	if where == nil {
		t.Fatalf("the server's first line: got %q, %v, want it to match %v", line, err, serving)
	}
	s.addr, s.metrics = where[1], where[2]
	return s
}

// stop asks the server to end, and checks that it does so well.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(s.log)
	if err != nil {
		t.Errorf("the server's log: got %v, want no error", err)
	}
	if len(rest) > 0 {
		t.Errorf("what the server logs while it stops: got %q, want nothing", rest)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the server after SIGTERM: got %v, want exit status 0", err)
	}
}

// scrape returns the sum of the series of /metrics that begin with prefix.
func (s *server) scrape(t *testing.T, prefix string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.metrics, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true // leave no connection behind
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	sum, found := 0.0, false
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		if strings.HasPrefix(series, prefix) {
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("%s: got %v, want a number", lines.Text(), err)
			}
			sum, found = sum+n, true
		}
	}
	if !found {
		t.Fatalf("%s: got no series %s, want at least one", s.metrics, prefix)
	}
	return sum
}

func dial(t *testing.T, addr string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// burst runs ./client, and returns how its calls ended.
func burst(t *testing.T, client, addr string, calls int, args ...string) map[string]int {
	t.Helper()
	args = append([]string{"-addr", addr, "-calls", strconv.Itoa(calls)}, args...)
	out, err := exec.CommandContext(t.Context(), client, args...).Output()
	if err != nil {
		t.Fatalf("client: got %v, want exit status 0", err)
	}
	t.Logf("the client printed:\n%s", out)
	if want := strconv.Itoa(calls) + " calls in "; !strings.HasPrefix(string(out), want) {
		t.Errorf("client: got %q, want it to begin with %q", out, want)
	}
	sum, ended := 0, map[string]int{}
	for _, m := range regexp.MustCompile(`(?m)^ +(\d+) (.+)$`).FindAllSubmatch(out, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			t.Fatal(err)
		}
		ended[string(m[2])] = n
		sum += n
	}
	if sum != calls {
		t.Errorf("client: got %v, together %d calls, want %d", ended, sum, calls)
	}
	return ended
}

// The client ends by itself, accounts for every call, and has tried again what
// was refused; the server has counted it. Callers that fail are told who refused them.
func TestBurst(t *testing.T) {
	const calls, by = 2000, "refused by gate demo: " // more than the limit can grow to before a call has ended
	client := build(t, "client")
	s := start(t)
	ended := burst(t, client, s.addr, calls, "-deadline", "1m", "-takes", "1s")
	refused := 0
	for how, n := range ended {
		if strings.HasPrefix(how, by) {
			refused += n
		}
	}
	if ended["OK"] == 0 || refused == 0 || ended["OK"]+refused != calls {
		t.Errorf("client: got %v, want some OK, and all others %q and a reason", ended, by)
	}
	if got, want := s.scrape(t, `weir_calls_total{gate="demo",outcome="success"}`), float64(ended["OK"]); got < want {
		t.Errorf("calls that the server counts as success: got %v, want the client's %v", got, want)
	}
	refusals := s.scrape(t, `weir_refusals_total{`)
	if refusals <= float64(refused) {
		t.Errorf("refusals: got %v, want more than the %d calls that failed: some were tried again", refusals, refused)
	}
	if got := s.scrape(t, `weir_limit{gate="demo"}`); got < 1 {
		t.Errorf("weir_limit: got %v, want 1 or more", got)
	}
	s.stop(t)
	if ended := burst(t, client, s.addr, 3); ended["Unavailable"] != 3 {
		t.Errorf("client without a server: got %v, want 3 Unavailable", ended)
	}
}

// A health watch that nobody ends does not keep the server from stopping.
func TestStopEndsAHealthWatch(t *testing.T) {
	s := start(t, "-grace", "100ms")
	watch, err := healthpb.NewHealthClient(dial(t, s.addr)).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(s.log)
	if want := "ended calls that no gate guards"; err != nil || !strings.Contains(string(rest), want) {
		t.Errorf("the server's log: got %q, %v, want %q", rest, err, want)
	}
	var exit *exec.ExitError
	if err := s.cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the server: got %v, want exit status 1: it had to end something", err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch: got %v, want UNAVAILABLE", err)
	}
}

func TestHealth(t *testing.T) {
	s := start(t)
	resp, err := healthpb.NewHealthClient(dial(t, s.addr)).Check(t.Context(), &healthpb.HealthCheckRequest{})
	if got := resp.GetStatus(); err != nil || got != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: got %v, %v, want SERVING", got, err)
	}
	s.stop(t)
}

// When the server is told to stop, the calls that run end well, and those that
// wait are told at once to go elsewhere.
func TestStopLetsCallsEnd(t *testing.T) {
	const calls = 40 // more than the gate lets in at first, fewer than it also lets wait
	s := start(t)
	stub := demopb.NewDemoServiceClient(dial(t, s.addr))
	ended := make(chan error, calls)
	for range calls {
		go func() {
			_, err := stub.Work(context.WithoutCancel(t.Context()), &demopb.WorkRequest{CostMicros: 900_000})
			ended <- err
		}()
	}
	running, waiting := 0.0, 0.0
	for running+waiting < calls {
		if len(ended) > 0 {
			t.Fatalf("a call ended before all were seen: %v", <-ended)
		}
		waiting, running = s.scrape(t, `weir_queue_length{gate="demo"}`), s.scrape(t, `weir_in_flight{gate="demo"}`)
	}
	s.stop(t)
	got := map[codes.Code]float64{}
	for range calls {
		got[status.Code(<-ended)]++
	}
	if waiting == 0 || got[codes.OK] != running || got[codes.Unavailable] != waiting {
		t.Errorf("%v calls that ran and %v that waited when the server was told to stop: got %v, want OK and Unavailable",
			running, waiting, got)
	}
}

func TestProgramsFitOnAPage(t *testing.T) {
	for _, file := range []string{"server/main.go", "client/main.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Count(text, []byte("\n")); got >= 65 {
			t.Errorf("%s: got %d lines, want fewer than 65", file, got)
		}
	}
}
