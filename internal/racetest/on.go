//go:build race

package racetest

// Enabled reports whether the race detector is on.
const Enabled = true

// Slowdown is the factor by which a long test divides its rounds.
const Slowdown = 10
