package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/streamcredit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, service demopb.StreamServiceServer) demopb.StreamServiceClient {
	t.Helper()
	return demopb.NewStreamServiceClient(grpctest.Start(t, func(r grpc.ServiceRegistrar) {
		demopb.RegisterStreamServiceServer(r, service)
	}).Conn)
}

// A row is one of the table's.
type row struct {
	worker                               string
	made, done, answers, toStage, toLast int
}

func rows(text string) (all []row) {
	for line := range strings.Lines(text) {
		var r row
		if n, _ := fmt.Sscanf(line, "%s %d %d %d %d %d", &r.worker, &r.made, &r.done, &r.answers, &r.toStage, &r.toLast); n == 6 {
			all = append(all, r)
		}
	}
	return all
}

// In a bubble, where a second is exact, a job takes 1 ms when the worker is fast and 20 ms when it is slow.
func TestTheSourceMakesWhatTheWorkerAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := settings{phase: 1010 * time.Millisecond, window: 4} // looks between two jobs
		last := newWorker(s)
		middle := &stage{worker: start(t, last)}
		var out bytes.Buffer
		if err := show(t.Context(), &out, s, chain{newSource(), middle, last}, start(t, middle)); err != nil {
			t.Fatalf("show = %v, want no error; output:\n%s", err, &out)
		}
		got := rows(out.String())
		if len(got) != 3 {
			t.Fatalf("rows = %v, want three; output:\n%s", got, &out)
		}
		for i, want := range []row{{"fast", 1000, 1000, 1000, 4, 4}, {"slow", 50, 50, 50, 4, 4}, {"fast", 1000, 1000, 1000, 4, 4}} {
			g := got[i]
			// A phase begins with what is left of the one before.
			if g.worker != want.worker || off(g.made, want.made) > 25 || off(g.done, want.done) > 25 || off(g.answers, want.answers) > 25 {
				t.Errorf("row %d = %v, want about %v", i, g, want)
			}
			if g.toStage > s.window || g.toLast != s.window {
				t.Errorf("row %d: %d jobs in flight to the stage and %d to the worker, want at most %[4]d and %[4]d", i, g.toStage, g.toLast, s.window)
			}
		}
		var made, done, answers, ahead int
		_, end, _ := strings.Cut(out.String(), "\n\n")
		_, end, _ = strings.Cut(end, "\n\n")
		if _, err := fmt.Sscanf(end, "%d jobs made, %d done, %d answers. The source was at most %d jobs ahead",
			&made, &done, &answers, &ahead); err != nil {
			t.Fatalf("output = %q: %v", &out, err)
		}
		if off(made, 2070) > 50 || made != done || done != answers {
			t.Errorf("made %d, done %d, answers %d; want the same, about 2070", made, done, answers)
		}
		if ahead != s.window {
			t.Errorf("the source was %d jobs ahead of the worker, want %d", ahead, s.window)
		}
	})
}

func off(got, want int) int { return max(got-want, want-got) }

// Numbers that were made up show which is which.
func TestEachHopHasItsColumn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := chain{newSource(), &stage{}, &worker{}}
		c.src.made.Store(9)
		c.middle.passed.Store(7)
		c.last.done.Store(2)
		var out bytes.Buffer
		ahead, err := c.watch(t.Context(), &out, time.Second, nil)
		if got := rows(out.String()); err != nil || ahead != 7 || len(got) != 3 || got[0].toStage != 2 || got[0].toLast != 5 {
			t.Errorf("watch = %d, %v, rows %v; want 7 ahead, and 2 and 5 in flight", ahead, err, got)
		}
	})
}

// broken is a worker that takes a few jobs and then ends as it says.
type broken struct {
	demopb.UnimplementedStreamServiceServer

	end func(context.Context, *streamcredit.Duplex[*answer, *job]) error
}

func (b broken) Convert(stream serverStream) error {
	both, _, err := streamcredit.Serve(stream, streamcredit.WithWindow(4))
	for range 3 {
		if err == nil {
			_, err = both.In.Recv(stream.Context())
		}
	}
	if err != nil {
		return err
	}
	return b.end(stream.Context(), both)
}

func TestAFailureIsReportedOnceAndAtOnce(t *testing.T) {
	broke := status.Error(codes.DataLoss, "the worker broke")
	for name, c := range map[string]struct {
		end  func(context.Context, *streamcredit.Duplex[*answer, *job]) error
		want codes.Code
		says string
	}{
		"the call": {
			end:  func(context.Context, *streamcredit.Duplex[*answer, *job]) error { return broke },
			want: codes.DataLoss, says: "the worker broke",
		},
		"the jobs": {
			end: func(ctx context.Context, both *streamcredit.Duplex[*answer, *job]) error {
				both.In.Cancel("the worker has had enough")
				<-ctx.Done()
				return ctx.Err()
			},
			want: codes.Canceled, says: "the worker has had enough",
		},
		"the answers": {
			end: func(ctx context.Context, both *streamcredit.Duplex[*answer, *job]) error {
				_ = both.Out.CloseWithError(broke)
				for _, err := range both.In.All(ctx) { // which goes on
					if err != nil {
						return err
					}
					time.Sleep(fast)
				}
				return nil
			},
			want: codes.DataLoss, says: "the worker broke",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				middle := &stage{worker: start(t, broken{end: c.end})}
				var out bytes.Buffer
				err := show(t.Context(), &out, settings{phase: time.Hour, window: 4}, chain{newSource(), middle, &worker{}}, start(t, middle))
				if status.Code(err) != c.want || strings.Count(err.Error(), c.says) != 1 {
					t.Errorf("show = %v, want %v, and once that %s", err, c.want, c.says)
				}
				if took := time.Since(begin); took > time.Minute || strings.Contains(out.String(), "jobs made") {
					t.Errorf("it took %v, want no time, and no conclusion; output:\n%s", took, &out)
				}
			})
		})
	}
}

func TestAnInterruptEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		s := settings{phase: time.Hour, window: 4}
		last := newWorker(s)
		last.cost.Store(int64(fast))
		middle := &stage{worker: start(t, last)}
		if err := show(ctx, &bytes.Buffer{}, s, chain{newSource(), middle, last}, start(t, middle)); !errors.Is(err, context.Canceled) {
			t.Errorf("show = %v, want it canceled", err)
		}
	})
}

func TestTheProgramRunsOverSockets(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, settings{phase: shortest, window: 4}); err != nil || len(rows(out.String())) != 3 {
		t.Errorf("run = %v, want no error and three rows; output:\n%s", err, &out)
	}
}

func TestAllMistakesAreNamed(t *testing.T) {
	for _, s := range []settings{{}, {phase: -1, window: math.MinInt}} {
		err := run(t.Context(), &bytes.Buffer{}, s)
		for _, flag := range []string{"-phase: got ", "-window: got "} {
			if err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("run(%v) = %v, want %q in it", s, err, flag)
			}
		}
	}
}
