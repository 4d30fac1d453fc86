//go:build !race

package streamcredit_test

// raceEnabled says that all is several times slower, for what is done many times.
const raceEnabled = false
