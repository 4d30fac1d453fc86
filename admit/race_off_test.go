//go:build !race

package admit_test

const slowdown = 1
