package admit

import "time"

// counters count the calls since the gate was created. The gate's lock guards them.
type counters struct {
	ended    [NumOutcomes]uint64
	running  span // time that the calls that ended have run
	waited   uint64
	waitTime span
	left     uint64
	refused  [MaxClasses][NumReasons]uint64
}

// add counts calls that ended.
func (c *counters) add(t *tally) {
	for o, n := range t.ended {
		c.ended[o] += n
	}
	c.running.add(t.running)
}

// wait counts a call that was admitted after waiting for d.
func (c *counters) wait(d time.Duration) {
	c.waited++
	c.waitTime.add(span{rest: d})
}

// writeTo copies the counters into s.
func (c *counters) writeTo(s *Stats) {
	s.Ended = c.ended
	s.Refused = c.refused
	s.Waited = c.waited
	s.WaitSeconds = c.waitTime.inSeconds()
	s.Left = c.left
	s.RunningSeconds = c.running.inSeconds()
}
