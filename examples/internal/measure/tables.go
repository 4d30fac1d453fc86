package main

import "slices"

// A table holds the figures that one command measures. The command runs benchmarks of a
// package, or tests that report figures as attributes (see testing.T.Attr).
type table struct {
	name      string // in the document's markers
	pkg       string // below the root of the module
	test      string // a pattern for -run; empty for benchmarks
	bench     string // a pattern for -bench
	benchtime string // of a benchmark
	cpu       string // GOMAXPROCS, for -cpu; empty for Go's default
	many      bool   // there is more than one test or benchmark
	once      bool   // each run gives the same figures, or takes its own median
	seconds   float64
	columns   []column

	// The measured values, by the row's name and the column's unit.
	rows  map[string]map[string][]string
	order []string
}

// A column shows the figures of one unit.
type column struct {
	unit, title string
	digits      int
}

var (
	served  = column{"served", "served", 3}
	goodput = column{"goodput/capacity", "goodput / capacity", 3}
	p50     = column{"p50-ms", "p50 ms", 1}
	p99     = column{"p99-ms", "p99 ms", 1}
	cpu     = column{"server-cpu-%", "server CPU %", 0}
	late    = column{"sender-late-ms", "sender late ms", 1}
	ns      = column{"ns/op", "ns", 0}
	allocs  = column{"allocs/op", "allocations", 0}
	ratio   = column{"ratio", "ratio to bare gRPC", 2}
	lowest  = column{"ratio-min", "lowest", 2}
	highest = column{"ratio-max", "highest", 2}
)

const load, raw = "examples/internal/overload", "examples/internal/rawload"

// tables returns all tables, in the order of the document.
func tables() []*table {
	return slices.Concat(harmAndGoodput(), changes(), fairness(), costs())
}

func harmAndGoodput() []*table {
	return []*table{
		{
			name: "harm-simulated", pkg: "limit", test: "TestAdaptiveHarmless", once: true,
			columns: []column{{"lost-%", "lost %", 3}, {"worst-seed-%", "worst seed %", 3}, {"limits", "limits", 0}},
		},
		{
			name: "harm", pkg: load, bench: "Harm", benchtime: "1x",
			columns: []column{{"calls", "calls", 0}, {"refused", "refused", 0}, {"late", "late", 0}},
		},
		{
			name: "goodput-simulated", pkg: "limit", test: "TestAdaptiveGoodput", once: true,
			columns: []column{{"1x", "1x", 3}, {"2x", "2x", 3}, {"4x", "4x", 3}, {"8x", "8x", 3}},
		},
		{
			name: "goodput", pkg: load, bench: "Goodput/service=exponential", benchtime: "1x",
			columns: []column{goodput, p50, p99, {"limit", "limit", 1}},
		},
		{
			name: "one-core", pkg: raw, bench: "OneCore$/load=(4|8|12)/guard=(semaphore|weir|tap)", benchtime: "1x",
			columns: []column{goodput, p50, p99, cpu, {"cpu/semaphore", "CPU / semaphore", 2}, late},
		},
		{
			name: "one-core-computing", pkg: raw, bench: "OneCoreComputing/load=.*/guard=(none|weir)", benchtime: "1x",
			columns: []column{{"goodput/left", "goodput / what refusals leave", 2}, p50, p99, late},
		},
	}
}

// changes are tables of loads and capacities that change.
func changes() []*table {
	before := column{"critical-before", "critical before", 3}
	during, after := column{"critical-during", "during", 3}, column{"critical-after", "after", 3}
	return []*table{
		{
			name: "steps", pkg: load, bench: "Step$", benchtime: "1x",
			columns: []column{{"down-s", "after the fall, s", 1}, {"up-s", "after the rise, s", 1}},
		},
		{
			name: "metastable", pkg: load, bench: "Metastable", benchtime: "1x",
			columns: []column{{"lost-before-%", "lost before %", 2}, {"back-s", "99 % served again after, s", 1}},
		},
		{
			name: "metastable-simulated", pkg: load, test: "TestMetastable", once: true,
			columns: []column{{"lost-before-%", "lost before %", 2}, {"back-s", "99 % served again after, s", 1}},
		},
		{name: "burst", pkg: load, bench: "Burst", benchtime: "1x", columns: []column{served}},
		{
			name: "surge", pkg: load, bench: "Surge", benchtime: "1x",
			columns: []column{before, during, after, goodput},
		},
		{
			name: "surge-simulated", pkg: load, test: "TestSurge", once: true,
			columns: []column{before, during, after, goodput},
		},
	}
}

func fairness() []*table {
	return []*table{
		{
			name: "neighbours", pkg: load, bench: "Neighbours", benchtime: "1x",
			columns: []column{{"protected/asked", "protected / asked", 3}, {"others/asked", "others / asked", 3}, goodput},
		},
		{
			name: "fairness-simulated", pkg: "admit",
			test: "^Test(ATenantWithLongCalls|AShareBesideLongCalls|CallsThatCostTheWholeLimit|" +
				"ADeadlineIsMeasuredByItsKind|ABurstIsAbsorbed)$",
			columns: []column{served, {"beside", "beside it", 3}}, once: true, many: true,
		},
	}
}

func costs() []*table {
	return []*table{
		{
			name: "cost", pkg: "interceptors", benchtime: "100ms", cpu: "1,2",
			bench:   "^BenchmarkUnary(ServerAdmitted|ServerAdmittedParallel|ServerRefused|ServerNeighbours)$",
			columns: []column{ns, allocs}, many: true,
		},
		{
			name: "scheduler", pkg: "admit", bench: "SchedulerWaits", benchtime: "20ms",
			columns: []column{ns, {"core-%", "% of a processor", 3}},
		},
		{
			name: "streams", pkg: "streamcredit", bench: "Ratio/(together|20ms)/.*/automatic", benchtime: "1x", seconds: 0.4, once: true,
			columns: []column{ratio, lowest, highest, {"window", "window", 0}},
		},
		{
			name: "stalled", pkg: "streamcredit", bench: "Stalled/W=64", benchtime: "1x", seconds: 0.5, once: true,
			columns: []column{{"heap-MiB", "heap, MiB", 0}, {"ratio", "busy streams / alone", 2}},
		},
	}
}
