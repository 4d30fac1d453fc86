package debug_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/websocket"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
)

// A browser is a headless Chromium with one page, driven by its debugging protocol.
type browser struct {
	t    *testing.T
	conn *websocket.Conn
	n    int
	said []string // messages of the console, and errors
}

// startBrowser starts Chromium. Without one the test is skipped, unless WEIR_BROWSER=required.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	var program string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			program = found
			break
		}
	}
	if program == "" {
		if os.Getenv("WEIR_BROWSER") == "required" {
			t.Fatal("got no chromium on the PATH, want one, because of WEIR_BROWSER=required")
		}
		t.Skip("NOT CHECKED: the page in a browser, because there is no chromium on the PATH (Debian: apt-get install chromium)")
	}
	// Not t.TempDir, since children of Chromium may outlive it for a moment.
	home := must(os.MkdirTemp("", "weir-browser"))(t) //nolint:usetesting // see above
	cmd := exec.Command(program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-background-networking", "--disable-extensions", "--user-data-dir="+home, "--remote-debugging-port=0", "about:blank")
	stderr := must(cmd.StderrPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for range 50 {
			if os.RemoveAll(home) == nil {
				return
			}
			time.Sleep(100 * ms)
		}
	})
	lines, addr := bufio.NewScanner(stderr), ""
	for addr == "" && lines.Scan() {
		if _, after, ok := strings.Cut(lines.Text(), "DevTools listening on ws://"); ok {
			addr, _, _ = strings.Cut(after, "/")
		}
	}
	if addr == "" {
		t.Fatal("chromium ended without a debugging address")
	}
	go func() { _, _ = io.Copy(io.Discard, stderr) }()
	b := &browser{t: t, conn: connect(t, addr)}
	b.call("Page.enable", nil)
	b.call("Runtime.enable", nil)
	b.call("Log.enable", nil)
	return b
}

// connect connects to the first page.
func connect(t *testing.T, addr string) *websocket.Conn {
	t.Helper()
	resp := must(http.Get("http://" + addr + "/json/list"))(t) //nolint:bodyclose // closed below
	defer resp.Body.Close()
	var pages []struct {
		Type                 string `json:"type"`
		WebSocketDebuggerURL string `json:"webSocketDebuggerUrl"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&pages); err != nil {
		t.Fatal(err)
	}
	for _, p := range pages {
		if p.Type == "page" {
			conn := must(websocket.Dial(p.WebSocketDebuggerURL, "", "http://"+addr))(t)
			conn.MaxPayloadBytes = 64 << 20
			t.Cleanup(func() { _ = conn.Close() })
			return conn
		}
	}
	t.Fatal("chromium has no page")
	return nil
}

// call calls a method of the protocol and returns the result.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	b.n++
	if err := websocket.JSON.Send(b.conn, map[string]any{"id": b.n, "method": method, "params": params}); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		_ = b.conn.SetReadDeadline(time.Now().Add(time.Minute))
		var m struct {
			ID             int
			Method         string
			Params, Result json.RawMessage
			Error          *struct{ Message string }
		}
		if err := websocket.JSON.Receive(b.conn, &m); err != nil {
			b.t.Fatalf("%s: %v", method, err)
		}
		switch {
		case m.ID == b.n && m.Error != nil:
			b.t.Fatalf("%s: %s", method, m.Error.Message)
		case m.ID == b.n:
			return m.Result
		case m.Method == "Runtime.consoleAPICalled", m.Method == "Runtime.exceptionThrown", m.Method == "Log.entryAdded":
			b.said = append(b.said, string(m.Params))
		}
	}
}

// eval returns the value of an expression in the page, as text.
func (b *browser) eval(expression string) string {
	b.t.Helper()
	var r struct {
		Result struct {
			Value any `json:"value"`
		} `json:"result"`
		ExceptionDetails *struct {
			Text string `json:"text"`
		} `json:"exceptionDetails"`
	}
	raw := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if err := json.Unmarshal(raw, &r); err != nil {
		b.t.Fatal(err)
	}
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, raw)
	}
	return fmt.Sprint(r.Result.Value)
}

// see waits until the text of the page contains everything.
func (b *browser) see(all ...string) {
	b.t.Helper()
	missing, text := "", ""
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(200 * ms) {
		missing, text = "", b.eval("(document.body || {}).innerText || ''")
		for _, want := range all {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
	}
	b.t.Fatalf("the page: got no %q, want it in\n%s", missing, text)
}

// size makes the window as large as a device.
func (b *browser) size(width, height int, phone, dark bool) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}})
}

// shoot keeps a picture of the whole page in the directory WEIR_SHOTS, if that is set.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("WEIR_SHOTS")
	if dir == "" {
		return
	}
	var shot struct {
		Data string `json:"data"`
	}
	if err := json.Unmarshal(b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true, "format": "png"}), &shot); err != nil {
		b.t.Fatal(err)
	}
	png := must(base64.StdEncoding.DecodeString(shot.Data))(b.t)
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// The page shows each of the troubles, live, without a word of complaint in the console, and
// so that a phone and a screen reader can use it.
func TestTheBrowserShowsTrouble(t *testing.T) {
	b := startBrowser(t)
	calm := must(admit.New(admit.WithName("calm")))(t)
	sources := append([]debug.Source{calm, hostileGate(t), hostileSource{"<b>bold</b>" + evil}}, troubled(t)...)
	server := httptest.NewServer(must(debug.NewHandler(sources...))(t))
	defer server.Close()
	b.size(1280, 900, false, false)
	b.call("Page.navigate", map[string]any{"url": server.URL})
	b.see(
		"gate api", "queue_full", // a live overload
		"gate orders", "Nothing moves.", "all permits (2) are in use", // a deadlock of nested calls
		"is stalled", "This end waits for demand", "The cause is at the receiver", // a stalled stream
		"breaker to-stock", "is open:", // an open circuit
		"throttle to-mail", "monitor process", "pool is at 95 %",
		"Why was this refused?", "/weir.demo.v1.DemoService/Work",
	)
	b.shoot("desktop")
	if text := b.eval("(document.body || {}).innerText || ''"); strings.Contains(text, "secret-customer") || !strings.Contains(text, "tenant-") {
		t.Errorf("tenants: got %q, want hashes", text)
	}
	b.lives()
	b.writesNoHTML()
	b.isAccessible()
	b.showsTroubleFirst()

	b.size(390, 844, true, true)
	if got := b.eval("document.documentElement.scrollWidth <= innerWidth"); got != "true" {
		t.Errorf("on a phone: got a page that is wider than the screen (%s of %s), want only tables to scroll",
			b.eval("document.documentElement.scrollWidth"), b.eval("innerWidth"))
	}
	b.shoot("phone")
	if len(b.said) > 0 {
		t.Errorf("console: got %s, want nothing", strings.Join(b.said, "\n"))
	}
	server.CloseClientConnections()
	server.Close()
	b.see("The server does not answer")
}

// evil is a name that would run a script and draw a picture if it became HTML.
const evil = `<img src=x onerror="window.evil=1"><script>window.evil=1</script>`

// hostileGate is a gate with a call whose names are HTML, and with refusals of such calls.
func hostileGate(t testing.TB) *admit.Gate {
	g := must(admit.New(admit.WithName("hostile"+evil), admit.WithFixedLimit(1), admit.WithoutQueue()))(t)
	g.Inspect() // from now on running calls are listed
	c := admit.Call{Method: "/a.A/" + evil, Tenant: evil}
	p := must(g.Acquire(t.Context(), c))(t)
	held := new(admit.Permit)
	p.MoveTo(held)
	t.Cleanup(func() { held.Release(admit.Ignored) })
	newCallers(t).repeat(50*ms, func(ctx context.Context) { _, _ = g.Acquire(ctx, c) })
	return g
}

// writesNoHTML checks that hostile names are on the page as text, and nothing of them is an element.
func (b *browser) writesNoHTML() {
	b.t.Helper()
	b.see("Gate hostile<img src=x", "/a.A/<img src=x", "<b>bold</b><img src=x")
	for _, expression := range []string{"document.querySelector('img, b:not(figcaption b)') === null", "document.scripts.length === 1", "window.evil === undefined"} {
		if got := b.eval(expression); got != "true" {
			b.t.Errorf("names that are HTML: got %s for %s, want true", got, expression)
		}
	}
}

// showsTroubleFirst checks that gates that are well come last, that charts fill their width before
// five minutes have passed, and that short times are plain numbers.
func (b *browser) showsTroubleFirst() {
	b.t.Helper()
	const gates = "[...document.querySelectorAll('#gates article')].map(a => a.id).join(' ')"
	if got := b.eval(gates); !strings.HasSuffix(got, " gate_calm") || !strings.HasPrefix(got, "gate_") {
		b.t.Errorf("gates: got the order %q, want the one without a finding last", got)
	}
	const first = "Number(document.querySelector('#gate_api svg polyline').getAttribute('points').split(',')[0]) < 1"
	// A chart has a point for each five seconds.
	for deadline := time.Now().Add(30 * time.Second); b.eval(first) != "true" && time.Now().Before(deadline); {
		time.Sleep(200 * ms)
	}
	if got := b.eval(first); got != "true" {
		b.t.Errorf("the chart of a limit: got %s, want it to begin at the left", b.eval("document.querySelector('#gate_api svg').outerHTML"))
	}
	for seconds, want := range map[string]string{"8.3e-4": "830 µs", "1e-6": "1 µs", "-2.34e-4": "-230 µs", "0.5": "500 ms", "9e3": "3 h"} {
		if got := b.eval("time(" + seconds + ")"); got != want {
			b.t.Errorf("a time of %s s: got %q, want %q", seconds, got, want)
		}
	}
}

// lives checks that the page follows the server, and stops with the button.
func (b *browser) lives() {
	b.t.Helper()
	text := func() string { return b.eval("document.getElementById('gates').innerText") }
	before := text()
	for deadline := time.Now().Add(30 * time.Second); text() == before; time.Sleep(200 * ms) {
		if time.Now().After(deadline) {
			b.t.Fatal("the page: got no change within 30 s, want it live")
		}
	}
	b.eval("document.getElementById('pause').click()")
	b.see("Paused at")
	if got := b.eval("document.getElementById('pause').getAttribute('aria-pressed')"); got != "true" {
		b.t.Errorf("pause: got aria-pressed %s, want true", got)
	}
	b.eval("document.getElementById('pause').click()")
	b.see("State of")
}

// isAccessible checks the structure that a screen reader needs.
func (b *browser) isAccessible() {
	b.t.Helper()
	for what, expression := range map[string]string{
		"a language":                           "document.documentElement.lang === 'en'",
		"one h1":                               "document.querySelectorAll('h1').length === 1",
		"a heading for each section":           "[...document.querySelectorAll('section')].every(s => s.querySelector('h2'))",
		"tables":                               "document.querySelectorAll('table').length > 5",
		"a caption for each table":             "[...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent)",
		"a scope for each heading of a column": "[...document.querySelectorAll('thead th')].every(h => h.scope === 'col')",
		"a heading for each row":               "[...document.querySelectorAll('tbody tr')].every(r => r.querySelector('th[scope=row]'))",
		"a name for each chart":                "[...document.querySelectorAll('svg')].every(s => s.getAttribute('role') === 'img' && s.getAttribute('aria-label'))",
		"polite news":                          "document.querySelector('[role=status][aria-live=polite]').textContent.includes('critical, gate orders')",
		"words beside colours":                 "[...document.querySelectorAll('ul.findings li')].every(l => /^(critical|warning|info):$/.test(l.querySelector('.level').textContent))",
		"scrolling by keyboard":                "[...document.querySelectorAll('.scroll')].every(s => s.tabIndex === 0 && s.getAttribute('aria-label'))",
		"nothing from elsewhere":               "performance.getEntriesByType('resource').every(r => r.name.startsWith(location.origin))",
	} {
		if got := b.eval(expression); got != "true" {
			b.t.Errorf("accessibility: got %s, want %s", got, what)
		}
	}
}
