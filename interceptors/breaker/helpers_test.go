package breaker_test

import (
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/internal/calltest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const work = calltest.Work

type (
	service  = calltest.Service
	deaf     = calltest.Deaf
	instance = calltest.Instance
	client   = calltest.Caller
)

var (
	start       = calltest.Start
	drainStream = calltest.DrainStream
	serve       = calltest.Serve
	works       = calltest.Works
	exponential = calltest.Exponential
	strict      = calltest.Strict
	fill        = calltest.Fill
	wantCode    = calltest.WantCode
	wantDetails = calltest.WantDetails
	golden      = calltest.Golden
	fails       = calltest.Fails
	aside       = calltest.Aside
	takes       = calltest.Takes
	down        = calltest.Down
	hang        = calltest.Hang
	half        = calltest.Half
	until       = calltest.Until
	inMemory    = calltest.InMemory
	fleet       = calltest.Fleet
	offer       = calltest.Offer
	subscribe   = calltest.Subscribe
	sum         = calltest.Sum
	always      = calltest.Always
	callers     = calltest.Callers
)

var well = fails(codes.OK)

// wantConfigError checks that an error names all that is wrong.
func wantConfigError(t *testing.T, err error, want ...string) {
	t.Helper()
	calltest.WantConfigError(t, err, breaker.ErrConfig, want...)
}
