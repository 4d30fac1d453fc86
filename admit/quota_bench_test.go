package admit_test

import (
	"strconv"
	"testing"

	"github.com/weir-go/weir/admit"
)

// What a quota adds to a call.
func BenchmarkQuota(b *testing.B) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = "tenant" + strconv.Itoa(i)
	}
	for name, opts := range map[string][]admit.Option{
		"without": nil,
		"class":   {ofClass(admit.Default, 1e9, 1<<30)},
		"tenants": {each(1e9, 1<<30)},
		"refused": {each(1e-6, 1)},
	} {
		b.Run(name, func(b *testing.B) {
			g := newGate(b, 100, opts...)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p, _ := g.Acquire(b.Context(), admit.Call{Tenant: keys[i%len(keys)]})
				p.Release(admit.Success)
			}
		})
	}
}
