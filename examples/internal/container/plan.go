package container

import "time"

// The kinds of trouble.
const (
	// Dependency stops, and handlers wait for it whatever their context says. Requests of
	// 200 KB have a deadline of 100 ms, and callers retry at once. Envoy's rate limit service
	// died that way.
	Dependency = "dependency"
	// Unread answers: 1,000 clients ask for 1 MiB each and do not read it. In 4 GiB they ask for
	// 16 MiB.
	Unread = "unread"
	// Streams: 256 bidirectional streams without a reader, beside calls. In 4 GiB there are 1,024
	// on one connection, with four that are read, for which gRPC enlarges the windows of all.
	Streams = "streams"
	// Uneven requests: 1 % of them have 8 MiB, and these hang. In 4 GiB four times as many come.
	Uneven = "uneven"
	// Cache grows without bound.
	Cache = "cache"
	// Spiral: background calls fill a cache up to a GOMEMLIMIT of 85 %.
	Spiral = "spiral"
	// Healthy is no trouble: the memory is at 60 % and the load is moderate.
	Healthy = "healthy"
)

// Troubles are the kinds that kill a bare server.
func Troubles() []string { return []string{Dependency, Unread, Streams, Uneven, Cache} }

// A Plan describes a server, its load and its trouble.
type Plan struct {
	Config

	Kernel     bool          // a cgroup bounds the memory, not a limit of the data segment
	Rate       float64       // usual calls a second
	Size       int           // of their requests, in bytes
	Background float64       // background calls a second
	Deadline   time.Duration // of each attempt
	Retries    int           // at once, and without a budget
	End        time.Duration
	Seed       uint64
}

// PlanFor returns the plan for a trouble of a length.
func PlanFor(trouble string, weir bool, memory int64, length time.Duration, seed uint64) Plan {
	p := Plan{
		Config: Config{Weir: weir, Trouble: trouble, Memory: memory, Works: 200_000, From: 3 * time.Second},
		Rate:   300, Size: 100, Deadline: time.Second, Seed: seed,
	}
	p.To = p.From + length
	p.End = p.To + settled + 3*time.Second
	switch trouble {
	case Dependency:
		p.Works, p.Size, p.Deadline, p.Retries = 0, 200_000, 100*time.Millisecond, 3
	case Uneven:
		p.Works, p.Rate = 0, p.Rate*float64(min(p.scale(), 4))
	case Spiral:
		p.GoLimit, p.Background = 0.85, 100*float64(min(p.scale(), 3))
	case Healthy:
		p.Base = memory * 60 / 100 * 9 / 10 // the program has a tenth of it
	}
	return p
}

// Shortened returns the plan with less time before the trouble and after it. Twice as many
// large calls come, so that they take half the time to kill a server.
func (p Plan) Shortened() Plan {
	if p.Trouble == Uneven {
		p.Rate *= 2
	}
	p.From, p.To, p.End = p.From-time.Second, p.To-time.Second, p.End-2*time.Second
	return p
}
