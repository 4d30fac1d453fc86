package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/debug"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a network that no machine slows down.
func memory() (net.Listener, []grpc.DialOption, error) {
	lis := bufconn.Listen(256 << 10)
	return lis, []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return lis.DialContext(ctx)
	})}, nil
}

// values returns the sum of the series of a metric with some labels, each as name="value".
func values(t *testing.T, s *system, metric string, labels ...string) (sum float64) {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != metric {
			continue
		}
		for _, m := range f.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName()+`="`+l.GetValue()+`"`)
			}
			if !slices.ContainsFunc(labels, func(l string) bool { return !slices.Contains(has, l) }) {
				sum += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// sick runs the system with a fault for a while in virtual time, and looks at it before the end.
func sick(t *testing.T, fault string, d time.Duration, look func(*system)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := open(1, memory)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		stop := s.load(ctx, time.Hour, 1)
		time.Sleep(2 * time.Second)
		var faults sync.WaitGroup
		faults.Go(func() { s.fail(ctx, strings.Split(fault, ",")) })
		time.Sleep(d)
		look(s)
		cancel()
		faults.Wait()
		if err := stop(); err != nil {
			t.Errorf("consumer: got %v, want no error", err)
		}
		if err := s.close(); err != nil {
			t.Errorf("close: got %v, want no error", err)
		}
	})
}

// A system without a fault serves everything.
func TestNothingBreaks(t *testing.T) {
	sick(t, faultNone, 6*time.Second, func(s *system) {
		if got := values(t, s, "weir_refusals_total") + values(t, s, "weir_left_total"); got != 0 {
			t.Errorf("lost calls: got %v, want 0", got)
		}
		if got := values(t, s, "weir_calls_total", `outcome="success"`, `gate="storefront"`); got < 700 {
			t.Errorf("calls served in 8 s: got %v, want 700 or more", got)
		}
		if got := values(t, s, "weir_stream_sent_elements_total", `meter="feed"`); got < 250 {
			t.Errorf("elements sent in 8 s: got %v, want 250 or more", got)
		}
	})
}

func TestOverload(t *testing.T) {
	sick(t, faultOverload, 6*time.Second, func(s *system) {
		if got := values(t, s, "weir_refusals_total", `gate="payments"`, `class="critical"`); got < 10 {
			t.Errorf("critical calls that payments refused: got %v, want 10 or more", got)
		}
	})
}

// Once calls wait for each other, none succeeds any more.
func TestDeadlock(t *testing.T) {
	sick(t, faultDeadlock, 4*time.Second, func(s *system) {
		before := values(t, s, "weir_calls_total", `outcome="success"`, `gate="storefront"`)
		const looks = 10
		full := 0 // for a moment nobody has a permit, when the deadlines of all end together
		for range looks {
			time.Sleep(390 * time.Millisecond)
			if values(t, s, "weir_in_flight", `gate="storefront"`) == permits {
				full++
			}
		}
		if got := values(t, s, "weir_calls_total", `outcome="success"`, `gate="storefront"`) - before; got > 0 {
			t.Errorf("calls served in 4 s: got %v, want 0", got)
		}
		if full < looks/2 {
			t.Errorf("looks that saw %d calls in flight: got %d of %d, want half of them", permits, full, looks)
		}
	})
}

func TestCircuit(t *testing.T) {
	sick(t, faultCircuit, 8*time.Second, func(s *system) {
		if got := values(t, s, "weir_breaker_openings_total"); got < 2 {
			t.Errorf("openings in 8 s: got %v, want 2 or more", got)
		}
	})
}

func TestStream(t *testing.T) {
	sick(t, faultStream, 3*time.Second, func(s *system) {
		if starving, lag := values(t, s, "weir_stream_starving_senders"), values(t, s, "weir_stream_lag"); starving != 1 || lag <= window/2 || lag > window {
			t.Errorf("got %v starving senders and a lag of %v, want 1, and more than half of the %v asked for", starving, lag, window)
		}
	})
}

// A cause is what the page says about a fault: the source of the finding, and words in it.
type cause struct {
	source string
	says   []string
}

var causes = map[string]cause{
	faultDeadlock: {"gate storefront", []string{"Nothing moves", "StorefrontService/Buy", "payments", "to spare", "second permit", "WithPropagation"}},
	faultCircuit:  {"breaker payments", []string{"PaymentsService/Charge", "opened", "The log of the target says why"}},
	faultStream:   {"meter feed", []string{"StreamService/Subscribe", "has not consumed", "The cause is at the receiver"}},
	faultConsumer: {"broker orders", []string{"A consumer pauses", "warehouse: closed"}},
	faultOverload: {"gate payments", []string{"It refuses", "of class critical"}},
}

// The page names the causes to a viewer who opens it after the system broke, at each look, also of
// two faults at once. The leak is left to package debug, since memory is real.
func TestThePageNamesTheCause(t *testing.T) {
	for _, broken := range []string{
		faultDeadlock, faultCircuit, faultStream, faultConsumer, faultOverload,
		faultCircuit + "," + faultStream, faultDeadlock + "," + faultConsumer, faultOverload + "," + faultStream,
	} {
		t.Run(broken, func(t *testing.T) {
			sick(t, broken, 20*time.Second, func(s *system) {
				page, err := debug.NewHandler(s.shown...)
				if err != nil {
					t.Fatal(err)
				}
				const looks = 10
				kept := 0 // looks at which circuits kept the calls away from the overload
				for n := range looks {
					all := findings(t, page)
					for name := range strings.SplitSeq(broken, ",") {
						missing := causes[name].missing(all)
						if missing != "" && name == faultOverload && causes[faultCircuit].missing(all) == "" {
							kept++
							continue
						}
						if missing != "" {
							t.Errorf("look %d of %d: got %v, want a finding of %s that says %q", n+1, looks, all, causes[name].source, missing)
						}
					}
					time.Sleep(870 * time.Millisecond)
				}
				if kept > looks/3 {
					t.Errorf("looks at which the page names circuits instead of the overload: got %d of %d, want at most a third", kept, looks)
				}
			})
		})
	}
	sick(t, faultNone, 20*time.Second, func(s *system) {
		page, err := debug.NewHandler(s.shown...)
		if err != nil {
			t.Fatal(err)
		}
		if got := findings(t, page); len(got) > 0 {
			t.Errorf("a system that is well: got %v, want no finding", got)
		}
	})
}

// missing returns words that the findings of the source do not have, or "".
func (c cause) missing(all []finding) string {
	text := ""
	for _, f := range all {
		if f.Source == c.source {
			text += f.Text + "\n"
		}
	}
	for _, want := range c.says {
		if !strings.Contains(text, want) {
			return want
		}
	}
	return ""
}

// A finding is one of the page.
type finding struct {
	Level  string `json:"level"`
	Source string `json:"source"`
	Text   string `json:"text"`
}

func findings(t *testing.T, page http.Handler) []finding {
	t.Helper()
	answer := httptest.NewRecorder()
	page.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, pagePath+"?format=json", http.NoBody))
	var content struct {
		Findings []finding `json:"findings"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &content); err != nil {
		t.Fatal(err)
	}
	return content.Findings
}

// The consumer pauses, and handles what has come meanwhile once it can.
func TestConsumer(t *testing.T) {
	sick(t, faultConsumer, 4*time.Second, func(s *system) {
		before := values(t, s, "weir_broker_settled_total", `end="acked"`)
		if got := values(t, s, "weir_broker_paused"); got != 1 {
			t.Errorf("consumers that pause: got %v, want 1", got)
		}
		s.broken.Store(nil)
		time.Sleep(4 * time.Second)
		if got := values(t, s, "weir_broker_settled_total", `end="acked"`) - before; got < 300 {
			t.Errorf("messages acknowledged in 4 s after a pause of 4 s: got %v, want 300 or more", got)
		}
	})
}

// As a user runs it, over sockets, with the leak: in real time, since memory is real.
func TestOverSockets(t *testing.T) {
	var out strings.Builder
	f := flags{faults: []string{faultMemory}, duration: 2 * time.Second, after: 100 * time.Millisecond, addr: "127.0.0.1:0", seed: 1}
	if err := play(t.Context(), &out, f, sockets); err != nil {
		t.Fatalf("play: got %v, want no error", err)
	}
	for _, want := range []string{"metrics at http://127.0.0.1:", "/debug/weir", "something broke", `it was "memory": the storefront kept`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want it to say %q", &out, want)
		}
	}
}

// Every mistake is named at once.
func TestAllFlagsChecked(t *testing.T) {
	_, err := parse([]string{"-fault", "fire,memory", "-duration", "1s", "-after", "2s", "now"})
	if err == nil {
		t.Fatal("three mistakes: got no error, want all three named")
	}
	for _, want := range []string{`-fault: got "fire"`, "-duration: got 1s", `got argument "now"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("three mistakes: got %q, want it to contain %q", err, want)
		}
	}
}
