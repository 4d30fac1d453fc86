package retry_test

import (
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const work = calltest.Work

var busy = calltest.Fails(codes.Unavailable)

func calls(o ...grpc.CallOption) []grpc.CallOption { return o }

const pushback = "grpc-retry-pushback-ms"

type (
	service = calltest.Service
)

var (
	start    = calltest.Start
	serve    = calltest.Serve
	does     = calltest.Does
	newGate  = calltest.NewGate
	wantCode = calltest.WantCode
)

// wantConfigError checks that an error names all that is wrong.
func wantConfigError(t *testing.T, err error, want ...string) {
	t.Helper()
	calltest.WantConfigError(t, err, retry.ErrConfig, want...)
}
