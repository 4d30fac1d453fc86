package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/internal/logtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a network that no machine slows down.
func memory() (net.Listener, []grpc.DialOption, error) {
	lis := bufconn.Listen(256 << 10)
	return lis, []grpc.DialOption{grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
		return lis.DialContext(ctx)
	})}, nil
}

// All of it, in virtual time.
func TestDemonstration(t *testing.T) {
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "page.html")
	synctest.Test(t, func(t *testing.T) {
		if err := demonstrate(t.Context(), &out, flags{duration: usual / 2, html: file, seed: 1}, memory); err != nil {
			t.Fatalf("demonstrate: got %v, want no error", err)
		}
	})
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, data, found := strings.Cut(string(kept), "const kept = ")
	if !found {
		t.Fatal("the page has no place for its data")
	}
	var parts []part
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&parts); err != nil {
		t.Fatalf("data of the page: got %v, want JSON", err)
	}
	var reports []report
	samples := 0
	for _, p := range parts {
		reports, samples = append(reports, p.Reports...), samples+len(p.Samples)
	}
	if len(reports) != 2 || samples < 10 || !parts[len(parts)-1].Done {
		t.Fatalf("got %d reports and %d samples, done %v, want 2, some, true", len(reports), samples, parts[len(parts)-1].Done)
	}
	bare, weir := reports[0].slow(), reports[1].slow()
	t.Log(&out)
	if weir.Attempts >= 1.2 || bare.Attempts < 5 {
		t.Errorf("attempts at payments for each call: got %.2f bare and %.2f with weir, want 5 or more, and less than 1.2", bare.Attempts, weir.Attempts)
	}
	if weir.Buys < 0.98 || bare.Buys > 0.2 {
		t.Errorf("buys while payments is slow: got %.2f of them bare and %.2f with weir, want at most 0.2, and 0.98", bare.Buys, weir.Buys)
	}
	if r := reports[1].Recovered; r < 0 || r > 2 {
		t.Errorf("recovered with weir after payments: got %v s, want at most 2", r)
	}
	if most, least := weir.Held[2], bare.Held[2]; most > least {
		t.Errorf("calls held by payments: got %d with weir and %d bare, want fewer", most, least)
	}
	for _, want := range []string{"payments, per call", "Nobody resets anything"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want it to say %q", &out, want)
		}
	}
}

// Every mistake is named at once.
func TestAllFlagsChecked(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "page.html")
	_, err := parse([]string{"-duration", "1s", "-html", missing, "now"})
	if err == nil {
		t.Fatal("three mistakes: got no error, want all three named")
	}
	for _, want := range []string{"-duration: got 1s", `got argument "now"`, "-html: got a file that can't be written"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("three mistakes: got %q, want it to contain %q", err, want)
		}
	}
}

// As a user runs it: over sockets, with its page.
func TestOverSockets(t *testing.T) {
	var out strings.Builder
	if err := demonstrate(t.Context(), &out, flags{duration: shortest, addr: "127.0.0.1:0", seed: 1}, sockets); err != nil {
		t.Fatalf("demonstrate: got %v, want no error", err)
	}
	if !strings.Contains(out.String(), "live charts at http://127.0.0.1:") || !strings.Contains(out.String(), "weir  well again") {
		t.Errorf("got %q, want it to say where the page is, and all phases", &out)
	}
}

// The page beside the charts shows the gates of all three services while weir runs.
func TestThePageShowsTheGates(t *testing.T) {
	var out logtest.Book
	over := make(chan error, 1)
	go func() {
		over <- demonstrate(t.Context(), &out, flags{duration: 2 * shortest, addr: "127.0.0.1:0", seed: 1}, sockets)
	}()
	for seen := false; !seen; {
		select {
		case err := <-over:
			t.Fatalf("demonstrate ended with %v before the page showed the gates", err)
		case <-time.After(50 * time.Millisecond):
		}
		url := regexp.MustCompile(`http://\S+/debug/weir`).FindString(out.String())
		if url == "" {
			continue
		}
		resp, err := http.Get(url + "?format=json")
		if err != nil {
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		seen = strings.Contains(string(body), `"storefront"`) && strings.Contains(string(body), `"orders"`) && strings.Contains(string(body), `"payments"`)
	}
	if err := <-over; err != nil {
		t.Errorf("demonstrate: got %v, want no error", err)
	}
}
