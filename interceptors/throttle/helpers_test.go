package throttle_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/weir-go/weir/interceptors/internal/calltest"
	"github.com/weir-go/weir/interceptors/throttle"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const work = calltest.Work

type (
	service  = calltest.Service
	instance = calltest.Instance
	client   = calltest.Caller
	deaf     = calltest.Deaf
)

var (
	start       = calltest.Start
	echo        = calltest.Echo
	serve       = calltest.Serve
	works       = calltest.Works
	drainStream = calltest.DrainStream
	does        = calltest.Does
	strict      = calltest.Strict
	fill        = calltest.Fill
	wantCode    = calltest.WantCode
	wantDetails = calltest.WantDetails
	golden      = calltest.Golden
	fails       = calltest.Fails
	ends        = calltest.Ends
	aside       = calltest.Aside
	detailed    = calltest.Detailed
	errDown     = calltest.ErrDown
	takes       = calltest.Takes
	down        = calltest.Down
	until       = calltest.Until
	inMemory    = calltest.InMemory
	offer       = calltest.Offer
	subscribe   = calltest.Subscribe
	sum         = calltest.Sum
	always      = calltest.Always
	callers     = calltest.Callers
)

// wantConfigError checks that an error names all that is wrong.
func wantConfigError(t *testing.T, err error, want ...string) {
	t.Helper()
	calltest.WantConfigError(t, err, throttle.ErrConfig, want...)
}
