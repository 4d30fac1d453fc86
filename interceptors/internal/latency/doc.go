// Package latency estimates how long the calls of a method take, and judges whether a call that
// ended at its deadline had a fair time.
package latency
