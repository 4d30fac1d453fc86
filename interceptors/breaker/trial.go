package breaker

import (
	"slices"
	"time"

	"github.com/weir-go/weir/interceptors/internal/peers"
)

const (
	// mostProbed bounds the addresses that a half-open circuit sends probes to.
	mostProbed = 16
	// mixedServers is the number of servers that is assumed where addresses do not tell them
	// apart.
	mixedServers = 5
)

// A trial is the result of the probes of a half-open circuit, by address.
type trial struct {
	known  int // addresses, as far as they were seen
	calls  int
	by     map[string]peers.Tally
	failed bool // the probes that have ended say so
}

func (t *trial) begin() { *t = trial{known: max(t.known, min(len(t.by), mostProbed))} }

func (t *trial) add(addr string, failed bool) {
	if t.by == nil {
		t.by = map[string]peers.Tally{}
	}
	one := t.by[addr]
	one.Add(failed)
	t.by[addr] = one
	t.calls++
}

// judge returns the verdict of all probes, Excluded if more are needed. One address that
// serves its calls closes the circuit. To open it again, all addresses must fail, or as many
// probes as there are for all of them.
func (t *trial) judge(cfg *Config, mixed bool) Verdict {
	mayFail := int(cfg.FailureRatio * float64(cfg.Probes)) // of the probes of an address
	enough, tooMany := max(cfg.Probes-mayFail, 1), min(mayFail+1, cfg.Probes)
	if mixed {
		enough = 1 // the probes may have gone to different servers
	}
	allFail := len(t.by) >= t.known
	for _, one := range t.by {
		if one.Calls-one.Failed >= enough {
			return Healthy
		}
		allFail = allFail && one.Failed >= tooMany
	}
	if allFail && !mixed || t.calls >= cfg.Probes*max(t.known, len(t.by)) {
		return Unwell
	}
	return Excluded
}

// probeLocked makes a call a probe if there is room for one. A probe that has not ended
// within OpenFor makes room for another; it still counts when it ends.
func (c *circuit) probeLocked(now time.Duration) *probe {
	if stateOf(c.era.Load()) == Open && !c.tellLocked(errExcluded) { // which makes it half-open
		return nil
	}
	if c.trial.failed {
		c.giveUpLocked(now)
		return nil
	}
	if len(c.probes) >= c.breaker.cfg.Probes*max(c.trial.known, 1) {
		if now-c.probes[0].began < c.breaker.cfg.OpenFor {
			return nil
		}
		c.probes = c.probes[1:]
	}
	p := &probe{began: now}
	c.probes = append(c.probes, p)
	return p
}

// giveUpLocked opens a half-open circuit after its probes failed, unless a probe in flight
// may still be answered.
func (c *circuit) giveUpLocked(now time.Duration) {
	if n := len(c.probes); n == 0 || now-c.probes[n-1].began >= c.patience() {
		c.tellLocked(errUnwell)
	}
}

// probedLocked counts a probe, which may be one that lost its place.
func (c *circuit) probedLocked(p ticket, v Verdict, now time.Duration) {
	c.probes = slices.DeleteFunc(c.probes, func(o *probe) bool { return o == p.probe })
	if v != Excluded {
		c.trial.add(p.witness.Addr(), v == Unwell)
		switch c.trial.judge(&c.breaker.cfg, c.mixed()) {
		case Healthy:
			c.tellLocked(nil)
			return
		case Unwell:
			c.trial.failed = true
		case Excluded:
			c.trial.failed = false
		}
	}
	if c.trial.failed {
		c.giveUpLocked(now)
	}
}
