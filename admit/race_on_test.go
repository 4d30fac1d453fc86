//go:build race

package admit_test

// slowdown divides the rounds of long tests: the race detector makes each dear.
const slowdown = 10
