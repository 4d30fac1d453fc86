package admit_test

import (
	"testing"
	"testing/synctest"
)

// FuzzGate reads a script off the input, two bytes a step, and plays it on a gate
// and on its model.
func FuzzGate(f *testing.F) {
	const longest = 400                                                      // bytes
	f.Add([]byte{0, 0, 0, 1, 0, 2, 13, 0, 13, 0, 13, 0})                     // acquire three, release three
	f.Add([]byte{26, 1, 0, 0, 0, 0, 20, 1, 13, 0})                           // cancel one that waits
	f.Add([]byte{28, 9, 0, 3, 0, 3, 0, 2, 0, 1, 13, 0, 13, 0})               // a queue of one, evicted by class
	f.Add([]byte{26, 3, 0, 0, 0, 0, 0, 0, 26, 1, 0, 0, 13, 0, 13, 0, 13, 0}) // lower the limit below what runs
	f.Add([]byte{28, 6, 0, 0, 0, 0, 0, 0, 23, 200, 0, 0, 13, 0, 13, 0})      // wait, and be refused
	f.Add([]byte{0, 0, 0, 0, 10, 40, 23, 50, 30, 0, 0, 0, 31, 0, 13, 0})     // deadline, dry run, drain
	f.Add([]byte{0, 48, 10, 206, 23, 48, 13, 48})                            // nothing succeeds, and more than half of the wait is over
	f.Fuzz(func(t *testing.T, input []byte) {
		script := make([]op, min(len(input), longest)/2)
		for i := range script {
			script[i] = op{Kind: input[2*i], Arg: input[2*i+1]}
		}
		synctest.Test(t, func(t *testing.T) {
			if err := play(script); err != nil {
				t.Fatalf("%v: %v", script, err)
			}
		})
	})
}
