package admit

import "time"

// Held returns how long ago the permit was given: what its call has taken so far, without
// the wait in the queue. It is safe for concurrent use, also after Release. It is 0 for
// the zero Permit.
func (p *Permit) Held() time.Duration {
	if p.gate == nil {
		return 0
	}
	return p.gate.now() - p.start
}
