package debug_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/internal/grpctest"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
	"github.com/weir-go/weir/streamcredit"
)

// ask sends a request to a handler.
func ask(h http.Handler, method, target string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, http.NoBody)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// look returns the snapshot that a handler serves as JSON.
func look(t testing.TB, h http.Handler) *debugpb.Snapshot {
	t.Helper()
	w := ask(h, http.MethodGet, "/?format=json")
	s := &debugpb.Snapshot{}
	if err := protojson.Unmarshal(w.Body.Bytes(), s); err != nil {
		t.Fatalf("JSON: %v: %s", err, w.Body)
	}
	return s
}

func TestFormats(t *testing.T) {
	h := must(debug.NewHandler(must(admit.New())(t)))(t)
	for _, tt := range []struct {
		target, accept string
		code           int
		kind           string
	}{
		{"/", "", 200, "text/html; charset=utf-8"},
		{"/", "text/html,application/xhtml+xml,*/*;q=0.8", 200, "text/html; charset=utf-8"},
		{"/", "*/*", 200, "text/html; charset=utf-8"},
		{"/", "application/json", 200, "application/json; charset=utf-8"},
		{"/", "text/html;q=0.5, application/json", 200, "application/json; charset=utf-8"},
		{"/", "text/html, application/json;q=0.5", 200, "text/html; charset=utf-8"},
		{"/?format=json", "text/html", 200, "application/json; charset=utf-8"},
		{"/?format=html", "application/json", 200, "text/html; charset=utf-8"},
		{"/?format=<script>", "", 400, "text/plain; charset=utf-8"},
	} {
		w := ask(h, http.MethodGet, tt.target, "Accept", tt.accept)
		if w.Code != tt.code || w.Header().Get("Content-Type") != tt.kind {
			t.Errorf("%s with Accept %q: got %d, %s, want %d, %s", tt.target, tt.accept, w.Code, w.Header().Get("Content-Type"), tt.code, tt.kind)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got headers %v, want nosniff and no-store", tt.target, w.Header())
		}
	}
}

// Nothing but GET and HEAD is answered, and neither changes anything.
func TestMethods(t *testing.T) {
	h := must(debug.NewHandler(must(admit.New())(t)))(t)
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "BREW", "get"} {
		if w := ask(h, method, "/?format=json"); strings.Contains(w.Body.String(), "{") || w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d, Allow %q, want 405, GET, HEAD", method, w.Code, w.Header().Get("Allow"))
		}
	}
	for _, target := range []string{"/", "/?format=json"} {
		w := ask(h, http.MethodHead, target)
		if w.Code != 200 || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "0" {
			t.Errorf("HEAD %s: got %d and %d bytes, want 200, no body, and its length", target, w.Code, w.Body.Len())
		}
	}
	var none *debug.Handler
	for _, h := range []*debug.Handler{none, {}} {
		if w := ask(h, http.MethodGet, "/"); w.Code != http.StatusNotFound {
			t.Errorf("a zero Handler: got %d, want 404", w.Code)
		}
	}
}

// The policy of the page allows its own script and style only.
func TestThePageLoadsNothing(t *testing.T) {
	h := must(debug.NewHandler(must(admit.New())(t)))(t)
	w := ask(h, http.MethodGet, "/")
	policy := w.Header().Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'sha256-", "style-src 'sha256-", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) {
			t.Errorf("policy: got %q, want %q in it", policy, want)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("policy: got %q, want nothing unsafe", policy)
	}
	for _, bad := range []string{"http://", "https://", "src=", "<link", "@import", "innerHTML", "/*STYLE*/", "/*SCRIPT*/"} {
		if text := strings.ReplaceAll(w.Body.String(), "http://www.w3.org/2000/svg", ""); strings.Contains(text, bad) {
			t.Errorf("the page: got %q in it, want it self-contained", bad)
		}
	}
}

func TestWrongSources(t *testing.T) {
	gate := must(admit.New())(t)
	for want, sources := range map[string][]debug.Source{
		"got none, want at least one":                                                                       {},
		"source 1 of 2: got <nil>, want a gate":                                                             {nil, gate},
		"source 1 of 1: got a nil gate, want one from admit.New":                                            {(*admit.Gate)(nil)},
		"source 1 of 1: got a zero Gate, want one from admit.New":                                           {&admit.Gate{}},
		"source 1 of 1: got a stream meter without a name, want one with a name from streamcredit.NewMeter": {&streamcredit.Meter{}},
		`gate name: got "default" more than once, want one for each (admit.WithName)`:                       {gate, must(admit.New())(t)},
		"source 1 of 1: got debug_test.stranger, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a Describer": {stranger{}},
	} {
		if _, err := debug.NewHandler(sources...); !errors.Is(err, debug.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("NewHandler: got %v, want ErrConfig that says %q", err, want)
		}
	}
}

type stranger struct{}

func (stranger) Name() string { return "stranger" }

// A describer is a source of another kind.
type describer struct{ panics bool }

func (describer) Name() string { return "jobs" }

func (d describer) Describe() (kind string, fields []debug.Field) {
	if d.panics {
		panic("a <bug>")
	}
	return "broker", []debug.Field{{Name: "held", Value: "3 messages"}}
}

func TestDescribers(t *testing.T) {
	s := look(t, must(debug.NewHandler(describer{}))(t))
	if o := s.GetOthers(); len(o) != 1 || o[0].GetKind() != "broker" || o[0].GetName() != "jobs" || o[0].GetFields()[0].GetValue() != "3 messages" {
		t.Errorf("others: got %v, want the broker jobs with its field", o)
	}
	s = look(t, must(debug.NewHandler(describer{panics: true}))(t))
	if o := s.GetOthers(); len(o) != 1 || o[0].GetFields()[0].GetName() != "panic" {
		t.Errorf("others: got %v, want the panic as a field", o)
	}
}

// Names that callers chose are cut off, and have no control characters. Nothing that a caller
// sends is written as HTML.
func TestHostileNames(t *testing.T) {
	gate := must(admit.New(admit.WithFixedLimit(3), admit.WithoutQueue()))(t)
	h := must(debug.NewHandler(gate))(t)
	h.ShowTenantNames()
	gate.Inspect()
	names := []string{
		"</script><script>alert(1)</script><img src=x onerror=alert(1)>",
		"/a/\x00\x1b[31m\x7f\u009b\u202egnp.exe\u2066\ufeff\xff\u2028",
		strings.Repeat("é", 1<<20),
	}
	for _, name := range names {
		p, err := gate.Acquire(t.Context(), admit.Call{Method: name, Tenant: name})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Release(admit.Ignored)
	}
	for _, name := range names {
		_, _ = gate.Acquire(t.Context(), admit.Call{Method: name, Tenant: name})
	}
	w := ask(h, http.MethodGet, "/?format=json")
	if n := w.Body.Len(); n > 64<<10 {
		t.Errorf("JSON: got %d bytes, want megabytes cut off", n)
	}
	for _, r := range w.Body.String() {
		if !unicode.IsPrint(r) {
			t.Errorf("JSON: got the character %U, want none that controls a terminal or text", r)
		}
	}
	g := look(t, h).GetGates()[0]
	if len(g.GetRunning()) != 3 || len(g.GetRefusals()) == 0 || len(g.GetBusiestTenants()) != 3 {
		t.Fatalf("got %d running, %d refusals, %d tenants, want 3, some and 3", len(g.GetRunning()), len(g.GetRefusals()), len(g.GetBusiestTenants()))
	}
	for _, c := range g.GetRunning() {
		if n := utf8.RuneCountInString(c.GetMethod()); n > 121 || !utf8.ValidString(c.GetMethod()) {
			t.Errorf("method: got %d characters, want at most 120 and an ellipsis", n)
		}
	}
	if got := g.GetRunning()[0].GetMethod(); got != names[0] {
		t.Errorf("method: got %q, want %q as it is, which the page writes as text", got, names[0])
	}
}

// Tenants are hashed, each with the secret of its handler.
func TestTenantsAreHashed(t *testing.T) {
	gate := must(admit.New())(t)
	a, b := must(debug.NewHandler(gate))(t), must(debug.NewHandler(gate))(t)
	ctx := t.Context()
	p, err := gate.Acquire(ctx, admit.Call{Tenant: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Release(admit.Ignored)
	name := func(h http.Handler) string { return look(t, h).GetGates()[0].GetBusiestTenants()[0].GetName() }
	if x, y := name(a), name(b); !strings.HasPrefix(x, "tenant-") || x == y || x != name(a) {
		t.Errorf("tenants: got %q and %q, want a hash that differs from handler to handler", x, y)
	}
	if body := ask(a, http.MethodGet, "/?format=json").Body.String(); strings.Contains(body, "alice") {
		t.Errorf("JSON: got the name of a tenant in %s, want none", body)
	}
	a.ShowTenantNames()
	if x, y := name(a), name(b); x != "alice" || !strings.HasPrefix(y, "tenant-") {
		t.Errorf("tenants after ShowTenantNames of one handler: got %q and %q, want the name, and a hash at the other", x, y)
	}
}

// Many viewers cost one snapshot for each half a second.
func TestViewersShareASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := must(debug.NewHandler(must(admit.New())(t)))(t)
		look := func() []byte { return ask(h, http.MethodGet, "/?format=json").Body.Bytes() }
		first := look()
		time.Sleep(400 * time.Millisecond)
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if !bytes.Equal(look(), first) {
					t.Error("a viewer within half a second: got another snapshot, want the same")
				}
			})
		}
		all.Wait()
		time.Sleep(200 * time.Millisecond)
		if bytes.Equal(look(), first) {
			t.Error("a viewer after half a second: got the same snapshot, want another")
		}
	})
}

// A reader that takes nothing delays no call and no other reader.
func TestSlowReader(t *testing.T) {
	gate := must(admit.New(admit.WithFixedLimit(200)))(t)
	h := must(debug.NewHandler(gate))(t)
	gate.Inspect()
	for range 100 {
		p, err := gate.Acquire(t.Context(), admit.Call{Method: strings.Repeat("m", 300)})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Release(admit.Ignored)
	}
	server := httptest.NewServer(h)
	defer server.Close()
	for range 20 { // connections that ask and never read
		conn := must(net.Dial("tcp", server.Listener.Addr().String()))(t)
		defer conn.Close()
		for range 50 {
			if _, err := io.WriteString(conn, "GET /?format=json HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				break
			}
		}
	}
	resp := must(http.Get(server.URL + "/?format=json"))(t) //nolint:bodyclose // closed below
	defer resp.Body.Close()
	if body := must(io.ReadAll(resp.Body))(t); resp.StatusCode != http.StatusOK || !json.Valid(body) {
		t.Errorf("another reader: got %d and %d bytes, want its answer", resp.StatusCode, len(body))
	}
	p, err := gate.Acquire(t.Context(), admit.Call{})
	if err != nil {
		t.Fatalf("a call: got %v, want a permit", err)
	}
	p.Release(admit.Success)
}

// The service offers the same content, and reflection finds it.
func TestTheService(t *testing.T) {
	gate := must(admit.New(admit.WithName("api")))(t)
	h := must(debug.NewHandler(gate))(t)
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		debug.Register(r, h)
		reflection.Register(r.(reflection.GRPCServer))
	})
	client := debugpb.NewDebugServiceClient(p.Conn)
	same := false
	for range 20 { // two looks of the same half second show the same
		answer := must(client.GetSnapshot(t.Context(), &debugpb.GetSnapshotRequest{}))(t)
		same = same || len(answer.GetSnapshot().GetGates()) == 1 && proto.Equal(answer.GetSnapshot(), look(t, h))
	}
	if !same {
		t.Error("the service: got another snapshot than the page in each of 20 looks, want the same")
	}
	stream := must(reflectionpb.NewServerReflectionClient(p.Conn).ServerReflectionInfo(t.Context()))(t)
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{
		FileContainingSymbol: "weir.debug.v1.DebugService.GetSnapshot",
	}}); err != nil {
		t.Fatal(err)
	}
	if r := must(stream.Recv())(t); r.GetFileDescriptorResponse() == nil {
		t.Errorf("reflection: got %v, want the file of the service", r)
	}
	_ = stream.CloseSend()
}

// BenchmarkSnapshot is one look at 100,000 tenants and 1,000 streams. A look a second that takes
// less than 10 ms costs less than 1 % of a core.
func BenchmarkSnapshot(b *testing.B) {
	gate := must(admit.New(admit.WithFixedLimit(200_000)))(b)
	permits := make([]admit.Permit, 100_000)
	for i := range permits {
		p, err := gate.Acquire(context.Background(), admit.Call{Tenant: fmt.Sprint("tenant", i), Method: "/a/B"})
		if err != nil {
			b.Fatal(err)
		}
		p.MoveTo(&permits[i])
	}
	meter := streamcredit.NewMeter("feed")
	openStreams(b, meter, 1000)
	h := must(debug.NewHandler(gate, meter))(b)
	b.ReportAllocs()
	for b.Loop() {
		debug.Forget(h)
		if w := ask(h, http.MethodGet, "/?format=json"); w.Code != 200 {
			b.Fatal(w.Code)
		}
	}
	b.StopTimer()
	for i := range permits {
		permits[i].Release(admit.Ignored)
	}
}
