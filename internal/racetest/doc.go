// Package racetest tells tests whether the race detector is on. The detector makes code
// several times slower, so long tests run fewer rounds, or not at all, with it.
package racetest
