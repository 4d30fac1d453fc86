package admit_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// After any history a healthy load is served in full, also where the class of all calls has a
// bound. The bound follows the limit, so calls behind it are a reason to raise the limit.
func TestAHealthyLoadBehindABulkhead(t *testing.T) {
	for _, share := range []float64{0.75, 0.9, 1} {
		synctest.Test(t, func(t *testing.T) {
			g, err := admit.New(admit.WithClassConfig(admit.Default, admit.ClassConfig{Max: share}))
			if err != nil {
				t.Fatal(err)
			}
			var served, refused atomic.Int64
			workers := make(chan struct{}, 2)
			calls := func(d, every, took time.Duration) {
				served.Store(0)
				refused.Store(0)
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(every) {
					go func() {
						ctx, cancel := context.WithTimeout(context.Background(), time.Second)
						defer cancel()
						p, err := g.Acquire(ctx, admit.Call{})
						if err != nil {
							refused.Add(1)
							return
						}
						if took == 0 { // two workers for all
							workers <- struct{}{}
							time.Sleep(20 * ms)
							<-workers
						} else {
							time.Sleep(took)
						}
						p.Release(admit.Success)
						served.Add(1)
					}()
				}
			}
			calls(20*time.Second, 3*ms, 0)
			low := g.Limit()
			calls(4*time.Second, 3*ms, 20*ms)
			calls(10*time.Second, 3*ms, 20*ms)
			t.Logf("share %v: limit %d after the overload, %d at the end", share, low, g.Limit())
			if n := refused.Load(); 100*n > n+served.Load() {
				t.Errorf("share %v: got %d of %d calls refused from 4 s after the overload, want next to none (limit %d, then %d)",
					share, n, n+served.Load(), low, g.Limit())
			}
			time.Sleep(5 * time.Second)
		})
	}
}
