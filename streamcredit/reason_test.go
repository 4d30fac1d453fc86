package streamcredit_test

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/streamcredit"
)

// A reason may be as long as it likes, such as one with the whole request in it. It ends its
// direction. The other one goes on.
func TestALongReason(t *testing.T) {
	long := strings.Repeat("\u00e4", 3<<20) // more than gRPC takes
	detailed, err := status.New(codes.Aborted, "short").WithDetails(&errdetails.DebugInfo{Detail: long})
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(t *testing.T, to, from side) error{
		"Cancel": func(t *testing.T, to, from side) error {
			to.in.Cancel(long)
			synctest.Wait()
			err := from.out.send(within(t, time.Minute), 1)
			if !errors.Is(err, streamcredit.ErrCanceled) || !strings.Contains(err.Error(), "\u00e4\u00e4") {
				return err
			}
			return nil
		},
		"CloseWithError": func(t *testing.T, to, from side) error {
			return endsWith(t, to, from, status.Error(codes.Aborted, long), "\u00e4\u00e4")
		},
		"with details": func(t *testing.T, to, from side) error { return endsWith(t, to, from, detailed.Err(), "short") },
	} {
		for _, k := range []kind{converts, framesBoth} {
			for _, fromServer := range []bool{true, false} {
				synctest.Test(t, func(t *testing.T) {
					e := connect(t, k, nil, nil)
					to, from := e.client, e.server
					if fromServer {
						to, from = from, to
					}
					if err := end(t, to, from); err != nil {
						t.Errorf("%s: got %.200v, want the reason", name, err)
					}
					if name == "Cancel" {
						from, to = to, from
					}
					sendAll(t, from.out, 1, 3)
					take(t, to.in, 1, 3)
				})
			}
		}
	}
}

// endsWith closes the direction from to, and returns nil if from receives the error.
func endsWith(t *testing.T, to, from side, err error, text string) error {
	t.Helper()
	if err := to.out.CloseWithError(err); err != nil {
		return err
	}
	_, got := from.in.recv(within(t, time.Minute))
	if status.Code(got) != codes.Aborted || !strings.Contains(got.Error(), text) {
		return got
	}
	return nil
}
