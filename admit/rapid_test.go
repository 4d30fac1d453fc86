package admit_test

import (
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"
)

// TestGateIsItsModel plays random scripts of acquire, cancel, release, update,
// drain and the passing of time on a gate and on the model, which must agree
// after every step.
func TestGateIsItsModel(t *testing.T) {
	step := rapid.Custom(func(t *rapid.T) op { return op{Kind: rapid.Byte().Draw(t, "kind"), Arg: rapid.Byte().Draw(t, "arg")} })
	scripts := rapid.SliceOfN(step, 1, 120)
	rapid.Check(t, func(rt *rapid.T) {
		script := scripts.Draw(rt, "script")
		var err error
		synctest.Test(t, func(*testing.T) { err = play(script) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}
