package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/internal/racetest"
)

// TestMain has all temporary files of servers in one directory, which must be empty in the
// end.
func TestMain(m *testing.M) {
	child.Main(serve)
	if racetest.Enabled { // which takes several times the memory
		for name, k := range kinds {
			k.memory *= racetest.Slowdown
			kinds[name] = k
		}
	}
	dir, err := os.MkdirTemp("", "incident-test-")
	if err == nil {
		err = os.Setenv("TMPDIR", dir)
	}
	code := 1
	if err == nil {
		code = m.Run()
		var files []string
		if files, err = filepath.Glob(filepath.Join(dir, "weir-incident-*")); len(files) > 0 {
			err = fmt.Errorf("files of servers: got %q after their end, want none", files)
		}
	}
	if err = errors.Join(err, os.RemoveAll(dir)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// installed skips the test if the server of a broker is not installed. With
// WEIR_BROKERS=required it fails instead.
func installed(t *testing.T, name string) {
	t.Helper()
	switch err := kinds[name].missing(); {
	case err == nil:
	case os.Getenv("WEIR_BROKERS") == "required":
		t.Fatalf("WEIR_BROKERS=required: %v", err)
	default:
		t.Skipf("NOT TESTED: %v", err)
	}
}

// short is a plan in which a bare consumer may survive.
var short = plan{
	troubleFrom: 1500 * time.Millisecond, troubleTo: 4500 * time.Millisecond,
	produceTo: 5 * time.Second, end: 2 * time.Minute,
}

// With weir every payment is made on each broker, none is lost, and the lag is at the broker.
// How fast that goes, and whether the bare consumer dies, depends on the machine.
func TestReplay(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			installed(t, name)
			html := filepath.Join(t.TempDir(), "page.html")
			var out bytes.Buffer
			o, err := demonstrate(t.Context(), flags{broker: name, html: html}, short, &out)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("\n%s", out.String())
			if got := out.String(); !strings.HasPrefix(got, k.title) || !strings.Contains(got, o.table()) || !strings.Contains(got, o.judge()) {
				t.Error("want the output to have the broker, the table and the verdict")
			}
			if page, err := os.ReadFile(html); err != nil || !bytes.Contains(page, []byte(k.title)) {
				t.Errorf("page: got %d bytes and error %v, want them to name %s", len(page), err, k.title)
			}
			f := o.weir
			if f.Produced == 0 || f.Paid.Distinct != f.Produced || f.Settled != f.Produced || f.lost() != 0 {
				t.Errorf("with weir: got %+v, want all payments made and acknowledged", f)
			}
			if f.Died != 0 {
				t.Errorf("with weir: got killed after %v with %d MiB, want it to live", f.Died, f.Peak/mib)
			}
			if f.Before < 0.8*rate {
				t.Logf("NOT TESTED: the lag, because this machine was too busy")
				return
			}
			if f.MaxLag < 2*workers {
				t.Errorf("with weir: got a largest lag of %d, want a backlog", f.MaxLag)
			}
			if b := o.bare; b.MaxHeld >= 0 && b.MaxHeld < 2*f.MaxHeld {
				t.Errorf("held at most: got %d bare and %d with weir, want bare far more", b.MaxHeld, f.MaxHeld)
			}
		})
	}
}

// The server of a broker ends with the process that needs it, also if that is killed. Then
// the standard input of the server's process ends, as it does here.
func TestServerEnds(t *testing.T) {
	for name := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			installed(t, name)
			p, addr, err := start(t.Context(), job{Role: roleBroker, Kind: name}, t.Context().Done())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(addr, "://") {
				u, err := url.Parse(addr)
				if err != nil {
					t.Fatal(err)
				}
				addr = u.Host
			}
			if err := dial(t.Context(), addr); err != nil {
				t.Errorf("dial: got %v, want a server", err)
			}
			p.Dismiss()
			if err := p.Wait(); err != nil || p.ExitCode() != 0 {
				t.Errorf("the process of the server: got %v and exit code %d, want 0", err, p.ExitCode())
			}
			late := time.After(5 * time.Second)
			for dial(t.Context(), addr) == nil {
				select {
				case <-time.After(10 * time.Millisecond): // a dying process closes its files one by one
				case <-late:
					t.Fatal("dial: got a server after its end, want none")
				}
			}
		})
	}
}

func dial(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// A run that is canceled while its server starts or while it runs ends soon, with the error
// of its context.
func TestReplayIsCanceled(t *testing.T) {
	for name, after := range map[string]time.Duration{"at the start": time.Millisecond, "while it runs": 2 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), after)
			defer cancel()
			_, err := replay(ctx, "nats", usualPlan, func(string, sample) {})
			if err == nil || ctx.Err() == nil {
				t.Errorf("replay: got %v after %v, want an error once its context ends", err, ctx.Err())
			}
		})
	}
}
