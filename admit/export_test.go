package admit

import "time"

// SchedulerWaits is what one gate knows of the waits for a processor.
type SchedulerWaits = schedulerWaits

// Mean returns the mean wait since the last call.
func (s *schedulerWaits) Mean() time.Duration { return s.mean() }

// Counted returns how many waits of the process the last reading counted.
func (s *schedulerWaits) Counted() float64 { return s.last.count }

// ForgetReading has the next gate that asks read the histogram.
func ForgetReading() {
	processWaits.mu.Lock()
	defer processWaits.mu.Unlock()
	processWaits.at = time.Time{}
}

// IgnoreScheduler has gates know nothing of the waits for a processor, until restore is called.
// The waits are of real time, so in virtual time they tell how busy the machine is that runs the test.
func IgnoreScheduler() (restore func()) {
	read := func(name string) (before string) {
		defer ForgetReading()
		processWaits.mu.Lock()
		defer processWaits.mu.Unlock()
		before, processWaits.sample[0].Name = processWaits.sample[0].Name, name
		return before
	}
	before := read("")
	return func() { read(before) }
}

// OnRest has f called in each rest of a look, until restore is called.
func OnRest(f func()) (restore func()) {
	rested = f
	return func() { rested = nil }
}
