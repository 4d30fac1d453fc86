package pressure_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/weir-go/weir/pressure"
)

// Each change of the level is logged once, and so is a signal that fails and works again.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines bytes.Buffer
		var broken atomic.Bool
		pool := newDial("pool", 0.2)
		other := pressure.NewSignal("other", func() (float64, error) {
			if broken.Load() {
				return 0, errors.New("no file")
			}
			return 0.1, nil
		})
		m := run(t, pressure.WithLogger(nil), pressure.WithLogger(slog.New(slog.NewTextHandler(&lines, nil))),
			pressure.WithName("process"), pressure.WithSignals(pool, other))
		wait(2)
		pool.set(0.95)
		wait(3)
		pool.set(0.1)
		wait(3)
		broken.Store(true)
		wait(3)
		broken.Store(false)
		wait(3)
		m.Stop() // no hook runs any more
		got := strings.Split(strings.TrimSpace(lines.String()), "\n")
		want := []string{
			`level=WARN msg="weir: the pressure has risen" monitor=process level=high was=calm signal=pool value=0.95`,
			`level=INFO msg="weir: the pressure has fallen" monitor=process level=calm was=high`,
			`level=WARN msg="weir: a signal of pressure fails" monitor=process signal=other error="no file"`,
			`level=INFO msg="weir: a signal of pressure works again" monitor=process signal=other`,
		}
		if len(got) != len(want) {
			t.Fatalf("log: got %d lines, want %d: %s", len(got), len(want), lines.String())
		}
		for i := range want {
			if !strings.Contains(got[i], want[i]) {
				t.Errorf("line %d: got %s, want %s", i, got[i], want[i])
			}
		}
	})
}
