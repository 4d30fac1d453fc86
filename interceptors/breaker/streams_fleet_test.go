package breaker_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/breaker"
)

// Streams that last are no calls that ended. As long as one instance answers streams, a breaker
// loses none of them.
func TestBreakerLosesNoStreamsWhileAnInstanceServes(t *testing.T) {
	for name, instances := range map[string][]instance{
		"one of two":         {down, takes(10 * time.Millisecond)},
		"one of two is slow": {down, takes(time.Second)},
		"two of three":       {down, takes(10 * time.Millisecond), down},
		"all":                {takes(10 * time.Millisecond)},
	} {
		for _, addresses := range []bool{true, false} {
			t.Run(fmt.Sprint(name, "/addresses=", addresses), func(t *testing.T) {
				run := func(guarded bool) (served int, stats []breaker.CircuitStats) {
					synctest.Test(t, func(t *testing.T) {
						var opts []grpc.DialOption
						b, err := breaker.New(breaker.Config{})
						if err != nil {
							t.Fatal(err)
						}
						if guarded {
							opts = append(opts, grpc.WithStreamInterceptor(breaker.Stream(b)))
						}
						client := inMemory(t, "round_robin", addresses, instances, opts...)
						served = subscribe(t, client, 50*time.Millisecond, 20*time.Second)
						stats = b.Stats()
					})
					return served, stats
				}
				without, _ := run(false)
				if with, stats := run(true); with < without-2 { // the first instance is drawn
					t.Errorf("streams answered: got %d, without a breaker %d (%+v)", with, without, stats)
				}
			})
		}
	}
}
