package child_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"

	"github.com/weir-go/weir/examples/internal/child"
)

type config struct {
	Say  string
	Fail bool
}

func TestMain(m *testing.M) {
	child.Main(func(c config, out io.Writer) error {
		if c.Fail {
			return errors.New("as asked")
		}
		_, err := fmt.Fprintf(out, "%s\n%d\n", c.Say, runtime.GOMAXPROCS(0))
		return err
	})
	os.Exit(m.Run())
}

func start(t *testing.T, ctx context.Context, c config, procs int) *child.Process {
	t.Helper()
	p, err := child.Start(ctx, c, procs)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestChild(t *testing.T) {
	p := start(t, t.Context(), config{Say: "hello"}, 1)
	for _, want := range []string{"hello", "1"} {
		if !p.Lines.Scan() || p.Lines.Text() != want {
			t.Errorf("line of the child: got %q, %v, want %q", p.Lines.Text(), p.Lines.Err(), want)
		}
	}
	if p.PID == os.Getpid() {
		t.Error("process id: got the parent's, want another")
	}
	if err := p.Stop(); err != nil {
		t.Errorf("Stop: got %v, want no error", err)
	}
}

// A child that fails, or whose context ends, prints no more lines.
func TestChildEnds(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, p := range map[string]*child.Process{
		"failed":   start(t, t.Context(), config{Fail: true}, 0),
		"canceled": start(t, canceled, config{Say: "hello"}, 0),
	} {
		if name == "canceled" {
			p.Lines.Scan()
			cancel()
			p.Lines.Scan() // how many processors
		}
		if p.Lines.Scan() {
			t.Errorf("%s: got line %q, want none", name, p.Lines.Text())
		}
		if err := p.Stop(); err != nil {
			t.Errorf("Stop of one that %s: got %v, want no error", name, err)
		}
	}
}

// A child that has ended by itself when its context ends was not killed, and that is no
// error. Wait notices the context about every other time.
func TestChildEndsBeforeItsContext(t *testing.T) {
	for range 10 {
		ctx, cancel := context.WithCancel(t.Context())
		p := start(t, ctx, config{Say: "hello"}, 0)
		p.Dismiss()
		for p.Lines.Scan() {
			continue // until it has ended
		}
		cancel()
		if err := p.Wait(); err != nil {
			t.Fatalf("Wait: got %v, want no error", err)
		}
	}
}

// A child that is dismissed ends by itself, with exit code 0.
func TestDismiss(t *testing.T) {
	p := start(t, t.Context(), config{Say: "hello"}, 0)
	p.Dismiss()
	for p.Lines.Scan() {
		continue
	}
	if err := p.Wait(); err != nil || p.ExitCode() != 0 {
		t.Errorf("a dismissed child: got %v and exit code %d, want no error and 0", err, p.ExitCode())
	}
}

func TestConfigMustBeJSON(t *testing.T) {
	if _, err := child.Start(t.Context(), func() {}, 0); err == nil {
		t.Error("a function as configuration: got no error, want one")
	}
}
