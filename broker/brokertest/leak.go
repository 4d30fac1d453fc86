package brokertest

import (
	"runtime"
	"slices"
	"strings"
)

// own are parts of the stacks of goroutines that the suite itself or package testing runs.
var own = []string{"brokertest.(*Proxy)", "brokertest.(*trial).do", "testing.(*T).Run", "testing.(*M).", "runtime.ensureSigM", "os/signal."}

// goroutines returns the stacks of all goroutines by their header up to the state, such as
// "goroutine 17".
func goroutines() map[string]string {
	byID := map[string]string{}
	for stack := range strings.SplitSeq(stacks(), "\n\n") {
		if id, _, ok := strings.Cut(stack, " ["); ok {
			byID[id] = stack
		}
	}
	return byID
}

// stacks returns the stacks of all goroutines.
func stacks() string {
	for buf := make([]byte, 1<<20); ; buf = make([]byte, 2*len(buf)) {
		if n := runtime.Stack(buf, true); n < len(buf) {
			return string(buf[:n])
		}
	}
}

// leaked returns the stacks of goroutines that are not in before and that no part of
// ignored names.
func leaked(before map[string]string, ignored []string) (left []string) {
	for id, stack := range goroutines() {
		if _, old := before[id]; old {
			continue
		}
		contained := func(part string) bool { return strings.Contains(stack, part) }
		if !slices.ContainsFunc(own, contained) && !slices.ContainsFunc(ignored, contained) {
			left = append(left, stack)
		}
	}
	slices.Sort(left)
	return left
}
