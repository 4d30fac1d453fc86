package interceptors

const (
	// mostProbed is for how many addresses a half-open circuit makes probes.
	mostProbed = 16
	// mixedServers is for how many it does where no address tells servers apart.
	mixedServers = 5
)

// A trial is what the probes of a half-open circuit have shown, by address.
type trial struct {
	known  int // addresses, as far as they were seen
	calls  int
	by     map[string]tally
	failed bool // the probes that have ended say so
}

func (t *trial) begin() { *t = trial{known: max(t.known, min(len(t.by), mostProbed))} }

func (t *trial) add(addr string, failed bool) {
	if t.by == nil {
		t.by = map[string]tally{}
	}
	one := t.by[addr]
	one.add(failed)
	t.by[addr] = one
	t.calls++
}

// judge says what the probes show together: Excluded if they have to go on. One address
// that serves its calls is enough to close the circuit. It takes all of them to open it
// again, or as many probes as there are for all.
func (t *trial) judge(cfg *BreakerConfig, mixed bool) Verdict {
	mayFail := int(cfg.FailureRatio * float64(cfg.Probes)) // of the probes of an address
	enough, tooMany := max(cfg.Probes-mayFail, 1), min(mayFail+1, cfg.Probes)
	if mixed {
		enough = 1 // the probes may have gone to different servers
	}
	allFail := len(t.by) >= t.known
	for _, one := range t.by {
		if one.calls-one.failed >= enough {
			return Healthy
		}
		allFail = allFail && one.failed >= tooMany
	}
	if allFail && !mixed || t.calls >= cfg.Probes*max(t.known, len(t.by)) {
		return Unwell
	}
	return Excluded
}
