package main

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/overload"
)

func TestMain(m *testing.M) {
	child.Main(serveChild)
	os.Exit(m.Run())
}

// launchHere starts a server in this process, whose connections are memory: it
// works in virtual time.
func launchHere(_ context.Context, c config, tell func(report)) (*overload.Client, func() error, error) {
	lis := bufconn.Listen(1 << 18)
	n, err := newNode(c, tell)
	if err != nil {
		return nil, nil, err
	}
	client, err := overload.Connect("memory", connections,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		return nil, nil, err
	}
	served := make(chan error, 1)
	go func() { served <- n.serve(lis) }()
	return client, func() error {
		err := client.Close()
		n.close()
		return errors.Join(err, <-served)
	}, nil
}

// actsOf returns the acts whose handlers compute, or those whose do not.
func actsOf(computes bool) (list []act) {
	for _, a := range acts {
		if a.Computes == computes {
			list = append(list, a)
		}
	}
	return list
}

// The acts whose handlers wait, with seconds that are exact whatever the machine
// does: the bare server serves nobody in time beyond its capacity, weir keeps it,
// and the verdict is what the rows say.
func TestWaitingActs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShow()
		p := &play{show: s, launch: launchHere, seed: 1, unit: 3300 * time.Millisecond}
		for _, a := range actsOf(false) {
			if err := p.together(t.Context(), a, s.addRows); err != nil {
				t.Fatalf("%s: got %v, want no error", a.Title, err)
			}
		}
		for _, r := range s.rows {
			wantSound(t, r)
			switch {
			case r.Run == bare && (r.Refused != 0 || (r.Load < 1 && r.Served < 1)):
				t.Errorf("bare at %gx: got %d refused, %.2f served, want none refused, and all served below 1x", r.Load, r.Refused, r.Served)
			case r.Run == bare && r.Load > 1 && (r.Share > 0.05 || r.Wasted < 0.9):
				t.Errorf("bare at %gx: got %.2f of capacity in time, %.2f of the work for nobody, want a collapse", r.Load, r.Share, r.Wasted)
			case r.Run == withWeir && r.Load > 1 && (r.Share < keepsWaiting || r.Wasted > 0.05):
				t.Errorf("weir at %gx: got %.2f of capacity in time, %.2f of the work for nobody, want at least %v, and hardly any",
					r.Load, r.Share, r.Wasted, keepsWaiting)
			}
		}
		harmless, _ := find(s.rows, "harmless", withWeir, 0.5)
		for _, f := range judge(s.rows).Findings {
			if f.Act == "harmless" && f.Kept != (harmless.Refused == 0) {
				t.Errorf("harmless: got kept %v with %d refused", f.Kept, harmless.Refused)
			}
		}
	})
}

// wantSound checks that the columns of a row are of one window and fit together.
func wantSound(t *testing.T, r Row) {
	t.Helper()
	if served := r.Served + ratio(r.Refused, r.Calls); r.Calls == 0 || served > 1 {
		t.Errorf("%s at %gx: got %d calls of which %.2f were served or refused, want some, and no more than all", r.Run, r.Load, r.Calls, served)
	}
	if got, want := r.Served*r.Offered, r.Share*r.Capacity; got < 0.999*want || got > 1.001*want {
		t.Errorf("%s at %gx: got %.1f calls a second served of those offered, and %.1f of capacity", r.Run, r.Load, got, want)
	}
	if off := r.Offered/r.Capacity/r.Load - 1; off > 0.2 || off < -0.2 {
		t.Errorf("%s at %gx: got %.0f calls a second, want about %g times %.0f", r.Run, r.Load, r.Offered, r.Load, r.Capacity)
	}
	if r.Late != 0 || r.Heap == 0 {
		t.Errorf("%s at %gx: got %v late and a heap of %v, want none late in virtual time, and some heap", r.Run, r.Load, r.Late, r.Heap)
	}
}

// Both servers of a step get the same calls at the same moments.
func TestSameCallsForBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &play{show: newShow(), launch: launchHere, seed: 7, unit: time.Second}
		a := act{Name: "waits", Loads: []float64{1}, weight: 1}
		if err := p.together(t.Context(), a, func(rows [2]Row) {
			if rows[0].Calls != rows[1].Calls {
				t.Errorf("calls: got %d bare, %d with weir, want the same", rows[0].Calls, rows[1].Calls)
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
}
