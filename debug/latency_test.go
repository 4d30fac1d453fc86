//go:build unix

package debug_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
)

// BenchmarkCallsDuringARefresh is the latency of calls while a page with a hundred thousand tenants
// and a thousand streams is refreshed, and in spans of the same length without a refresh. p50, p99,
// p99.9 and max are in nanoseconds. Run it with a priority, or other programs make the maximum.
func BenchmarkCallsDuringARefresh(b *testing.B) {
	h, gate := busy(b, 100_000, 1000)
	var with, without []time.Duration
	for b.Loop() {
		done := make(chan time.Duration, 1)
		go func() {
			at := time.Now()
			debug.Forget(h)
			look(b, h)
			done <- time.Since(at)
		}()
		var lasted time.Duration
		for lasted == 0 {
			with = append(with, timeCall(gate))
			select {
			case lasted = <-done:
			default:
			}
		}
		for end := time.Now().Add(lasted); time.Now().Before(end); {
			without = append(without, timeCall(gate))
		}
	}
	report := func(name string, all []time.Duration) {
		slices.Sort(all)
		for _, q := range []struct {
			name string
			at   int
		}{{"p50", len(all) / 2}, {"p99", len(all) * 99 / 100}, {"p99.9", len(all) * 999 / 1000}, {"max", len(all) - 1}} {
			b.ReportMetric(float64(all[q.at].Nanoseconds()), fmt.Sprintf("%s-%s-ns", q.name, name))
		}
	}
	report("refresh", with)
	report("quiet", without)
}

// timeCall makes a call and returns how long its admission and release take.
func timeCall(g *admit.Gate) time.Duration {
	at := time.Now()
	p, err := g.Acquire(context.Background(), admit.Call{Tenant: "tenant1", Method: "/shop.v1.Shop/Buy"})
	if err == nil {
		p.Release(admit.Success)
	}
	return time.Since(at)
}
