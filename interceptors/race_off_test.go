//go:build !race

package interceptors_test

const raceDetector = false
