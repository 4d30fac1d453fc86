package main

import (
	"bytes"
	"cmp"
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
	disk                                    string
	produced, stored, inFlight, waitPercent int
}

// upload runs the program in a bubble, where a second is exact, and reads what it printed.
func upload(t *testing.T, s settings) (rows []row, produced, ahead int) {
	t.Helper()
	var out bytes.Buffer
	disk := newStore(s)
	if err := show(t.Context(), &out, s, disk, start(t, disk)); err != nil {
		t.Fatalf("show = %v, want no error; output:\n%s", err, &out)
	}
	text := out.String()
	for line := range strings.Lines(text) {
		var r row
		if n, _ := fmt.Sscanf(line, "%s %d %d %d %d%%", &r.disk, &r.produced, &r.stored, &r.inFlight, &r.waitPercent); n == 5 {
			rows = append(rows, r)
		}
	}
	var stored, confirmed int
	_, end, _ := strings.Cut(text, "\nFinish ")
	if _, err := fmt.Sscanf(end, "returned when all was stored: %d parts produced, %d stored, %d confirmed to the client.\n"+
		"The client was at most %d parts ahead", &produced, &stored, &confirmed, &ahead); err != nil || len(rows) != 3 {
		t.Fatalf("rows = %v, %v; want three and a conclusion; output:\n%s", rows, err, text)
	}
	if produced == 0 || produced != stored || stored != confirmed {
		t.Errorf("produced %d, stored %d, confirmed %d; want the same, and some", produced, stored, confirmed)
	}
	return rows, produced, ahead
}

// A part takes 1 ms on a fast disk and 20 ms on a slow one.
func TestTheClientProducesWhatTheDiskTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rows, produced, ahead := upload(t, settings{phase: 1010 * time.Millisecond, window: 4, held: 8 << 20, bytes: 1 << 10}) // looks between two parts
		for i, want := range []row{{"fast", 1000, 1000, 4, 100}, {"slow", 50, 50, 4, 100}, {"fast", 1000, 1000, 4, 100}} {
			got := rows[i]
			// A phase begins with what is left of the one before.
			if got.disk != want.disk || off(got.produced, want.produced) > 25 || off(got.stored, want.stored) > 25 ||
				got.inFlight != want.inFlight || off(got.waitPercent, want.waitPercent) > 5 {
				t.Errorf("row %d = %v, want about %v", i, got, want)
			}
		}
		if off(produced, 2070) > 50 {
			t.Errorf("produced = %d, want about 2070", produced)
		}
		if ahead != 4 {
			t.Errorf("the client was %d parts ahead, want the window, 4", ahead)
		}
	})
}

func off(got, want int) int { return max(got-want, want-got) }

// Each row has one bound, and the other one out of the way. Nothing is ever stored.
func TestTheClientIsAheadByTheSmallerBound(t *testing.T) {
	for name, c := range map[string]struct {
		window int
		held   int64
		want   uint64
	}{
		"parts": {window: 4, held: 8 << 20, want: 4},
		"bytes": {window: 64, held: 8 << 10, want: 8}, // 8 parts of 1 KiB, and their other fields, are the first to reach it
		"none":  {window: 64, held: 0, want: 64},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := newStore(settings{window: c.window, held: c.held})
				disk.cost.Store(int64(time.Hour))
				ctx, cancel := context.WithCancel(t.Context())
				out, err := streamcredit.DialSend(ctx, start(t, disk).Upload)
				if err != nil {
					t.Fatal(err)
				}
				time.AfterFunc(time.Minute, cancel)
				if _, _, err = produce(ctx, out, 1<<10, func() (int64, error) { <-ctx.Done(); return 0, nil }); !errors.Is(err, context.Canceled) {
					t.Errorf("produce = %v, want it canceled", err)
				}
				if sent := out.Stats().Sent; sent != c.want {
					t.Errorf("sent = %d parts, want %d", sent, c.want)
				}
			})
		})
	}
}

// full is a server whose disk is full after a few parts.
type full struct {
	demopb.UnimplementedStreamServiceServer
}

func (full) Upload(stream grpc.BidiStreamingServer[demopb.UploadRequest, demopb.UploadResponse]) error {
	in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(4))
	for range 10 {
		if err == nil {
			_, err = in.Recv(stream.Context())
		}
	}
	return cmp.Or(err, status.Error(codes.ResourceExhausted, "the disk is full"))
}

func TestAServerThatFailsEndsItAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := settings{phase: time.Hour, window: 4, bytes: 1 << 10}
		err := show(t.Context(), &bytes.Buffer{}, s, newStore(s), start(t, full{}))
		if status.Code(err) != codes.ResourceExhausted || status.Convert(err).Message() != "the disk is full" || time.Since(begin) > time.Second {
			t.Errorf("show = %v after %v, want that the disk is full, at once", err, time.Since(begin))
		}
	})
}

func TestTheProgramRunsOverASocket(t *testing.T) {
	var out bytes.Buffer
	s := settings{phase: shortest, window: 4, held: 8 << 20, bytes: 1 << 10}
	if err := run(t.Context(), &out, s); err != nil || !strings.Contains(out.String(), "Finish returned") {
		t.Errorf("run = %v, want no error; output:\n%s", err, &out)
	}
}

func TestAllMistakesAreNamed(t *testing.T) {
	for _, s := range []settings{
		{held: -1, bytes: -1},
		{phase: -1, window: math.MinInt, held: math.MinInt64, bytes: largest + 1},
	} {
		err := run(t.Context(), &bytes.Buffer{}, s)
		for _, flag := range []string{"-phase: got ", "-window: got ", "-held: got ", "-bytes: got "} {
			if err == nil || !strings.Contains(err.Error(), flag) {
				t.Errorf("run(%v) = %v, want %q in it", s, err, flag)
			}
		}
	}
}
