package admit

import "github.com/weir-go/weir/internal/refuse"

func init() { //nolint:gochecknoinits // package refuse cannot import this one
	refuse.Option = func(next func() (uint8, bool)) any {
		return option(func(c *config) { c.refuses = next })
	}
}

// toldToRefuseLocked reports whether a test wants the call to be refused, and why.
func (g *Gate) toldToRefuseLocked() (Reason, bool) {
	if g.cfg.refuses == nil || g.cfg.dryRun {
		return 0, false
	}
	why, refuses := g.cfg.refuses()
	return Reason(why), refuses
}
