package debug_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/limit"
)

// A shut is a Pressure that refuses every call.
type shut struct{}

func (shut) Pressure() (level uint8, signal string) { return 3, "memory" }

// Responses that have not left are in flight beyond an adaptive limit, and leave its permits
// free. A gate that refuses calls for another reason then does not look stuck. One whose
// permits are all in use does.
func TestNothingMoves(t *testing.T) {
	for name, stuck := range map[string]bool{"responses that have not left": false, "handlers that hang": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				two := must(limit.NewAdaptive(limit.AdaptiveConfig{Initial: 2, Max: 2}))(t)
				g := must(admit.New(admit.WithLimit(two), admit.WithoutQueue()))(t)
				h := must(debug.NewHandler(g))(t)
				look(t, h) // from now on running calls are listed
				for range 2 {
					p := must(g.Acquire(t.Context(), admit.Call{}))(t)
					defer p.Release(admit.Ignored)
					if !stuck {
						p.Finish(admit.Success)
					}
				}
				time.Sleep(time.Second)
				look(t, h) // sees what has ended
				time.Sleep(10 * time.Second)
				if err := g.Update(admit.WithPressure(shut{})); err != nil {
					t.Fatal(err)
				}
				if _, err := g.Acquire(t.Context(), admit.Call{}); err == nil {
					t.Fatal("got a permit under pressure, want a refusal")
				}
				found := false
				for _, f := range look(t, h).GetFindings() {
					found = found || strings.Contains(f.GetText(), "Nothing moves")
				}
				if found != stuck {
					t.Errorf("got the finding %t, want %t: %v", found, stuck, look(t, h).GetFindings())
				}
			})
		})
	}
}
