//go:build race

package limit_test

const raceDetector = true
