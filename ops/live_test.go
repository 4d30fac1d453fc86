package ops_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// patience bounds the wait for something to happen on a machine that may be busy.
const patience = 2 * time.Minute

// eventually calls check until it returns nothing, and fails with its last answer.
func eventually(t testing.TB, check func() (wrong string)) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(250 * time.Millisecond) {
		wrong := check()
		if wrong == "" {
			return
		}
		if time.Now().After(end) || t.Context().Err() != nil {
			t.Fatalf("after %v: %s", patience, wrong)
		}
	}
}

// start starts a program that is ended with the test, and returns its output.
func start(t testing.TB, name string, args ...string) io.Reader {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
	})
	return out
}

// built is where gameday builds its program, empty before.
var built atomic.Pointer[string]

// gameday returns the path of the program examples/gameday. It builds it once.
var gameday = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "gameday")
	if err != nil {
		return "", err
	}
	built.Store(&dir)
	build := exec.Command("go", "build", "-o", dir, "./examples/gameday")
	build.Dir = ".."
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "gameday"), nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir := built.Load(); dir != nil {
		_ = os.RemoveAll(*dir)
	}
	os.Exit(code)
}

// A scene is a game day that a Prometheus scrapes.
type scene struct{ metrics, prometheus string }

// stage starts a game day with a fault, and a Prometheus. With native, it stores native histograms only. Its rules are
// those of alerts.yml with time sixty times as fast.
func stage(t testing.TB, fault string, native bool) scene {
	t.Helper()
	program := tool(t, "prometheus")
	path, err := gameday()
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(start(t, path, "-fault", fault, "-after", "1s", "-duration", "10m", "-addr", "127.0.0.1:0"))
	if !lines.Scan() {
		t.Fatalf("gameday -fault %s: got no output, want the address of its metrics", fault)
	}
	metrics, ok := strings.CutPrefix(lines.Text(), "metrics at ")
	if !ok {
		t.Fatalf("gameday -fault %s: got %q, want the address of its metrics", fault, lines.Text())
	}
	go func() {
		for lines.Scan() { // so that its output never blocks it
		}
	}()
	return scene{metrics, scrape(t, program, metrics, native)}
}

// scrape starts a Prometheus and returns its address.
func scrape(t testing.TB, program, metrics string, native bool) string {
	t.Helper()
	dir := t.TempDir()
	target, err := url.Parse(metrics)
	if err != nil {
		t.Fatal(err)
	}
	alerts, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("alerts.yml", hasten(string(alerts)))
	config := write("prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 250ms, evaluation_interval: 500ms}
rule_files: [alerts.yml]
scrape_configs:
  - job_name: gameday
    static_configs: [{targets: ['%s'], labels: {instance: shop}}]
`, target.Host))
	address := free(t)
	args := []string{"--config.file=" + config, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address, "--log.level=error"}
	if native {
		args = append(args, "--enable-feature=native-histograms")
	}
	go io.Copy(io.Discard, start(t, program, args...))
	s := scene{metrics, "http://" + address}
	eventually(t, func() string {
		if got := s.query(t, "scrape_samples_scraped > 0"); len(got) == 0 {
			return "Prometheus: got no sample, want some"
		}
		return ""
	})
	return s.prometheus
}

// free returns an address that nobody listens on.
func free(t testing.TB) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// duration matches the durations of rules: ranges, offsets and waits.
var duration = regexp.MustCompile(`(\[|offset |for: |_rate)(\d+)([mh])\b`)

// hasten divides every duration of the rules by sixty.
func hasten(rules string) string {
	return duration.ReplaceAllStringFunc(rules, func(s string) string {
		m := duration.FindStringSubmatch(s)
		if m[1] == "_rate" { // of a name
			return s
		}
		return m[1] + m[2] + map[string]string{"m": "s", "h": "m"}[m[3]]
	})
}

// get asks Prometheus' API, and decodes the data of its answer.
func (s scene) get(path string, values url.Values, into any) error {
	resp, err := http.Get(s.prometheus + path + "?" + values.Encode())
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("got %s, want success: %s", answer.Status, answer.Error)
	}
	return json.Unmarshal(answer.Data, into)
}

// A sample is one series of the answer to a query.
type sample struct {
	Metric map[string]string
	Value  []any
}

// query returns the answer to an expression, and nothing while Prometheus does not listen.
func (s scene) query(t testing.TB, expr string) []sample {
	t.Helper()
	var data struct{ Result []sample }
	err := s.get("/api/v1/query", url.Values{"query": {expr}}, &data)
	if err != nil && !strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "invalid character") {
		t.Errorf("%s: %v", expr, err)
	}
	return data.Result
}

// firing returns the alerts that fire.
func (s scene) firing(t testing.TB) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, a := range s.query(t, `ALERTS{alertstate="firing"}`) {
		names[a.Metric["alertname"]] = true
	}
	return names
}

func TestTimeIsSixtyTimesAsFast(t *testing.T) {
	const got = "rate(x[5m]) > x:rate5m offset 1h\nfor: 10m\nfor: 0m"
	if want := "rate(x[5s]) > x:rate5m offset 1m\nfor: 10s\nfor: 0s"; hasten(got) != want {
		t.Errorf("hasten: got %q, want %q", hasten(got), want)
	}
}
