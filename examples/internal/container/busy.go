package container

import "time"

// processorTimes are the times for which the processors worked.
type processorTimes struct {
	at        time.Time
	all, ours float64 // seconds, 0 if they are not known
	count     int     // processors
}

// others returns the share of the processors that other processes took since a moment.
func (now processorTimes) others(then processorTimes) float64 {
	possible := now.at.Sub(then.at).Seconds() * float64(now.count)
	if possible <= 0 {
		return 0
	}
	return max((now.all-then.all)-(now.ours-then.ours), 0) / possible
}
