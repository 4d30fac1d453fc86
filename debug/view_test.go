package debug_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/pressure"
)

// The JSON of a gate says about each call how long it runs or waits and how long its caller will
// wait, and has the newest decision, the newest refusal and the oldest moment first. No part of it
// has the name of a tenant.
func TestTheJSONOfAGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := must(admit.New(admit.WithFixedLimit(1), admit.WithQueue(admit.QueueConfig{Capacity: 1, MaxWait: time.Hour})))(t)
		h := must(debug.NewHandler(g))(t)
		look(t, h)
		if got := look(t, h).GetGates()[0].GetLastEndSeconds(); got != -1 {
			t.Errorf("before any call: got %v s since the last end, want -1", got)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Second)
		for range 30 { // moments with a success and a refusal each second
			p := must(g.Acquire(ctx, admit.Call{Tenant: "alice"}))(t)
			waits, end := context.WithCancel(ctx)
			go func() { _, _ = g.Acquire(waits, admit.Call{Tenant: "alice"}) }()
			synctest.Wait()
			_, _ = g.Acquire(ctx, admit.Call{Method: "/a/Old", Tenant: "alice"})
			end()
			synctest.Wait()
			time.Sleep(time.Second)
			p.Release(admit.Success)
		}
		for _, n := range []int{2, 3, 1} {
			if err := g.Update(admit.WithFixedLimit(n)); err != nil {
				t.Fatal(err)
			}
		}
		s := &stage{t: t, gate: g, ctx: ctx}
		s.runs(1, admit.Call{Method: "/a/Runs", Tenant: "alice"})
		s.waits(1, admit.Call{Method: "/a/Waits", Tenant: "alice"})
		time.Sleep(10 * time.Second)
		_, _ = g.Acquire(ctx, admit.Call{Method: "/a/New", Tenant: "alice"})

		shown := look(t, h).GetGates()[0]
		for what, calls := range map[string][]interface {
			GetMethod() string
			GetAgeSeconds() float64
			GetDeadlineLeftSeconds() float64
		}{"/a/Runs": asCalls(shown.GetRunning()), "/a/Waits": asCalls(shown.GetWaiting())} {
			if len(calls) != 1 || calls[0].GetMethod() != what || calls[0].GetAgeSeconds() != 10 || calls[0].GetDeadlineLeftSeconds() != 60 {
				t.Errorf("calls: got %v, want one of %s for 10 s with 60 s left", calls, what)
			}
		}
		var limits []int32
		for _, d := range shown.GetDecisions() {
			limits = append(limits, d.GetTo())
		}
		if !slices.Equal(limits, []int32{1, 3, 2}) {
			t.Errorf("limits that were decided: got %v, want 1 3 2, the newest first", limits)
		}
		if r := shown.GetRefusals(); len(r) < 2 || r[0].GetMethod() != "/a/New" || r[len(r)-1].GetMethod() != "/a/Old" {
			t.Errorf("refusals: got %v, want the newest first", r)
		}
		moments := shown.GetHistory()
		for i, m := range moments[1 : len(moments)-1] { // the last one has the changes above, too
			if !m.GetAt().AsTime().After(moments[i].GetAt().AsTime()) || m.GetRefused() != 5 || m.GetSucceeded() != 5 {
				t.Errorf("moment %d: got %v, want 5 successes and 5 refusals, later than the one before", i+1, m)
			}
		}
		if got := shown.GetLastEndSeconds(); len(moments) < 5 || got < 10 || got > 10.1 {
			t.Errorf("got %d moments and %v s since the last end, want 5 or more, and 10 s", len(moments), got)
		}
		names := []string{shown.GetRunning()[0].GetTenant(), shown.GetWaiting()[0].GetTenant(), shown.GetRefusals()[0].GetTenant(), shown.GetBusiestTenants()[0].GetName()}
		if !strings.HasPrefix(names[0], "tenant-") || len(slices.Compact(slices.Clone(names))) != 1 {
			t.Errorf("tenants: got %v, want the same hash everywhere", names)
		}
		if body := ask(h, http.MethodGet, "/?format=json").Body.String(); strings.Contains(body, "alice") {
			t.Errorf("JSON: got the name of a tenant in %s, want none", body)
		}
		cancel()
		synctest.Wait()
	})
}

func asCalls[C interface {
	GetMethod() string
	GetAgeSeconds() float64
	GetDeadlineLeftSeconds() float64
}](calls []C) (all []interface {
	GetMethod() string
	GetAgeSeconds() float64
	GetDeadlineLeftSeconds() float64
},
) {
	for _, c := range calls {
		all = append(all, c)
	}
	return all
}

// The worst findings come first, whatever the order of the sources, and 20 are shown.
func TestTheWorstFindingsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := func(name string, opts ...admit.Option) *admit.Gate {
			g := must(admit.New(append([]admit.Option{admit.WithName(name), admit.WithFixedLimit(1), admit.WithoutQueue()}, opts...)...))(t)
			p := must(g.Acquire(t.Context(), admit.Call{}))(t)
			held := new(admit.Permit)
			p.MoveTo(held)
			t.Cleanup(func() { held.Release(admit.Ignored) })
			return g
		}
		var sources []debug.Source
		refuse := func(c admit.Class, g *admit.Gate) {
			sources = append(sources, g)
			if p, err := g.Acquire(t.Context(), admit.Call{Class: c}); err == nil {
				p.Release(admit.Ignored)
			}
		}
		refuse(admit.Critical, gate("rehearsal", admit.WithDryRun(true)))
		for i := range 25 {
			refuse(admit.Sheddable, gate(fmt.Sprint("api", i)))
		}
		refuse(admit.Critical, gate("checkout"))
		all := look(t, must(debug.NewHandler(sources...))(t)).GetFindings()
		if len(all) != 20 || all[0].GetSource() != "gate checkout" || all[0].GetLevel().String() != "LEVEL_CRITICAL" || all[19].GetLevel().String() != "LEVEL_WARNING" {
			t.Errorf("27 findings: got %d, %v, want 20, the one of critical calls first", len(all), all)
		}
		if all = look(t, must(debug.NewHandler(sources[0]))(t)).GetFindings(); len(all) != 1 || all[0].GetLevel().String() != "LEVEL_INFO" || !strings.Contains(all[0].GetText(), "would refuse") {
			t.Errorf("a dry run: got %v, want one that is good to know", all)
		}
	})
}

// A call that waits long at a gate whose calls end is a finding, and so is a hook that panics.
func TestLongWaitsAndPanicsAreFindings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := must(admit.New(admit.WithFixedLimit(2), admit.WithQueue(admit.QueueConfig{Policy: admit.Block}), admit.WithHooks(admit.Hooks{
			Waited: func(context.Context, admit.Call, time.Duration) { panic("a hook") },
		})))(t)
		h := must(debug.NewHandler(g))(t)
		ctx, cancel := context.WithCancel(t.Context())
		s := &stage{t: t, gate: g, ctx: ctx}
		s.runs(1, call)
		p := must(g.Acquire(ctx, call))(t)
		go s.asks(ctx, call)
		synctest.Wait()
		p.Release(admit.Success) // and the call that waits is admitted
		synctest.Wait()
		if got := finding(t, h, "gate default"); !strings.Contains(got, "1 panic of hooks") {
			t.Errorf("a hook that panics: got the finding %q, want one", got)
		}
		p = must(g.Acquire(ctx, call))(t)
		go s.asks(ctx, call)
		time.Sleep(2 * time.Second)
		if !says(t, h, "gate default", "The oldest of 1 waiting call has waited for 2 s.") {
			t.Errorf("a call that waits for 2 s: got %v, want a finding", look(t, h).GetFindings())
		}
		p.Release(admit.Success)
		cancel()
		synctest.Wait()
	})
}

// Fifty viewers that look at once cost one snapshot.
func TestFiftyViewersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := &asked{}
		h := must(debug.NewHandler(asked))(t)
		for round := range int64(3) {
			var all sync.WaitGroup
			bodies := make([]string, 50)
			for i := range bodies {
				all.Go(func() { bodies[i] = ask(h, http.MethodGet, "/?format=json").Body.String() })
			}
			all.Wait()
			if len(slices.Compact(bodies)) != 1 || bodies[0] == "" || asked.n.Load() != round+1 {
				t.Errorf("round %d: got %d snapshots, and the same for all %t, want %d, and true", round, asked.n.Load(), len(bodies) == 1, round+1)
			}
			time.Sleep(time.Second)
		}
	})
}

// An asked counts how often it is looked at.
type asked struct{ n atomic.Int64 }

func (*asked) Name() string { return "asked" }

func (a *asked) Describe() (kind string, fields []debug.Field) {
	return "counter", []debug.Field{{Name: "looks", Value: fmt.Sprint(a.n.Add(1))}}
}

// No cache, no other site and no log of another site gets what the page shows.
func TestHeaders(t *testing.T) {
	h := must(debug.NewHandler(must(admit.New())(t)))(t)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
		for _, target := range []string{"/", "/?format=json", "/?format=no"} {
			got := ask(h, method, target).Header()
			for name, want := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer",
				"Cross-Origin-Resource-Policy": "same-origin", "Vary": "Accept",
			} {
				if got.Get(name) != want {
					t.Errorf("%s %s: got %s %q, want %q", method, target, name, got.Get(name), want)
				}
			}
		}
	}
	if got := ask(h, http.MethodGet, "/?format=json").Header().Get("Content-Security-Policy"); got != "default-src 'none'; frame-ancestors 'none'" {
		t.Errorf("the policy of JSON: got %q, want nothing allowed", got)
	}
}

// A hostileSource describes itself with names and values that control a terminal, and megabytes.
type hostileSource struct{ text string }

func (h hostileSource) Name() string { return h.text }

func (h hostileSource) Describe() (kind string, fields []debug.Field) {
	return h.text, slices.Repeat([]debug.Field{{Name: h.text, Value: h.text}}, 10_000)
}

// Errors of a broker and of a signal, and what a describer says, come from elsewhere. They are cut
// off, and have no character that controls a terminal or the direction of text.
func TestHostileErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		text := "<img src=x onerror=alert(1)>\x00\x1b[31m\x7f\u009b\u202e\u2066\ufeff\u2028\xff" + strings.Repeat("é", 1<<20)
		failing := must(pressure.New(pressure.WithName("process"), pressure.WithSignals(
			pressure.NewSignal("pool", func() (float64, error) { return 0, errors.New(text) }))))(t)
		failing.Start()
		defer failing.Stop()
		meter, quiet := broker.NewMeter("orders"), slog.New(slog.DiscardHandler)
		source := must(broker.NewSource(broken{errors.New(text)}, broker.SourceConfig{Name: "orders", Meter: meter, Logger: quiet}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- broker.Consume(ctx, source, func(context.Context, *broker.Message) error { return nil },
				broker.ConsumeConfig{Meter: meter, Grace: time.Second, Logger: quiet})
		}()
		time.Sleep(10 * time.Second)
		h := must(debug.NewHandler(failing, meter, hostileSource{strings.ToValidUTF8(text, "?")}))(t)
		body := ask(h, http.MethodGet, "/?format=json").Body.String()
		if len(body) > 256<<10 {
			t.Errorf("JSON: got %d bytes, want megabytes cut off", len(body))
		}
		for _, r := range body {
			if !unicode.IsPrint(r) {
				t.Errorf("JSON: got the character %U, want none that controls a terminal or text", r)
			}
		}
		shown := look(t, h)
		if got := shown.GetMonitors()[0].GetSignals()[0].GetError(); !strings.HasPrefix(got, "<img") {
			t.Errorf("the error of a signal: got %q, want its beginning", got)
		}
		if n := len(shown.GetOthers()[1].GetFields()); n != 100 {
			t.Errorf("a describer with 10,000 fields: got %d, want 100", n)
		}
		wantSays(t, "a broker with errors", finding(t, h, "broker orders"), "of the broker. The last one,", "<img")
		cancel()
		<-ended
		time.Sleep(2 * time.Minute)
		if got := finding(t, h, "broker orders"); got != "" {
			t.Errorf("two minutes after the last error: got the finding %q, want none", got)
		}
	})
}

// A broken is a broker that answers with an error.
type broken struct{ err error }

// Fetch implements broker.Fetcher.
func (b broken) Fetch(context.Context, int) ([]*broker.Message, error) { return nil, b.err }

// Close implements broker.Fetcher.
func (broken) Close(context.Context) error { return nil }

// Circuits and targets in trouble come first, and 200 of each are shown.
func TestTroubledTargetsComeFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		circuits := must(breaker.New(breaker.Config{Name: "circuits", OpenFor: time.Hour}))(t)
		throttled := must(throttle.New(throttle.Config{Name: "throttles"}))(t)
		down := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			return nil, status.Error(codes.Unavailable, "down")
		}}
		for _, c := range []interceptors.ClientConfig{{Breaker: circuits}, {Throttle: throttled}} {
			p := grpctest.Start(t, down.register, grpctest.DialOptions(must(interceptors.Client(c))(t)...))
			for i := range 230 { // methods that no server has are no failures
				_ = p.Conn.Invoke(t.Context(), fmt.Sprintf("/a.A/M%03d", i), &demopb.WorkRequest{}, &demopb.WorkResponse{})
			}
			for range 100 {
				_, _ = demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{})
			}
		}
		shown := look(t, must(debug.NewHandler(circuits, throttled))(t))
		if got := shown.GetCircuits(); len(got) != 200 || got[0].GetState() != "open" || !strings.HasSuffix(got[0].GetMethod(), "/Work") {
			t.Errorf("circuits: got %d, first %v, want 200 of 231, the open one first", len(got), got[0])
		}
		if got := shown.GetThrottles(); len(got) != 200 || got[0].GetProbability() == 0 || !strings.HasSuffix(got[0].GetMethod(), "/Work") {
			t.Errorf("throttles: got %d, first %v, want 200 of 231, the one that refuses first", len(got), got[0])
		}
	})
}

// A few retries of very few calls are no finding.
func TestRetriesOfFewCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n atomic.Int64
		s := service{work: func(context.Context, *demopb.WorkRequest) (*demopb.WorkResponse, error) {
			if n.Add(1)%2 == 1 {
				return nil, status.Error(codes.Unavailable, "every second one fails")
			}
			return &demopb.WorkResponse{}, nil
		}}
		p, h, _ := retries(t, s, retry.Config{BudgetRatio: 1})
		for range 20 {
			if _, err := demopb.NewDemoServiceClient(p.Conn).Work(t.Context(), &demopb.WorkRequest{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			if got := finding(t, h, "retries to-stock"); got != "" {
				t.Fatalf("a call every two seconds, sent twice: got the finding %q, want none", got)
			}
		}
	})
}
