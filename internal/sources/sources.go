// Package sources sorts the parts of weir that have numbers by their kind, and finds the mistakes in
// a list of them. Package metrics and package debug show these parts.
package sources

import (
	"fmt"
	"unicode/utf8"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

// A Source has a name. It is of one of the kinds, or of a kind that the caller knows.
type Source interface{ Name() string }

// Kinds holds sources by their kind, in the order in which they were given.
type Kinds struct {
	Gates     []*admit.Gate
	Breakers  []*breaker.Breaker
	Throttles []*throttle.Throttle
	Retries   []*retry.Meter
	Streams   []*streamcredit.Meter
	Monitors  []*pressure.Monitor
	Brokers   []*broker.Meter
}

// A kind is how errors speak of a source.
type kind struct {
	name string // of the kind
	from string // the function that makes a source
	zero string // a source that this function did not make
	by   string // the option that sets the name
}

var (
	gates     = kind{"gate", "one from admit.New", "a zero Gate", "admit.WithName"}
	breakers  = kind{"breaker", "one from breaker.New", "a zero Breaker", "breaker.Config.Name"}
	throttles = kind{"throttle", "one from throttle.New", "a zero Throttle", "throttle.Config.Name"}
	retries   = kind{"retry meter", "one with a name from retry.NewMeter", "a retry meter without a name", "retry.NewMeter"}
	streams   = kind{"stream meter", "one with a name from streamcredit.NewMeter", "a stream meter without a name", "streamcredit.NewMeter"}
	monitors  = kind{"monitor", "one from pressure.New", "a zero Monitor", "pressure.WithName"}
	brokers   = kind{"broker meter", "one with a name from broker.NewMeter", "a broker meter without a name", "broker.NewMeter"}
	others    = kind{name: "source", from: "one with a name", zero: "a source without a name", by: "its Name"}
)

// Sort sorts sources by their kind. It adds to bad a list without a source, a source that is nil,
// without a name or of no kind, a name that is not UTF-8, and a name that two sources of one kind
// have. other takes the sources of other kinds. It reports whether it knows the kind, which more
// names for people, as in ", or a Describer". A nil other takes none.
func Sort[S Source](all []S, bad *check.Errors, other func(S) bool, more string) (by Kinds) {
	bad.That(len(all) > 0, "sources: got none, want at least one")
	type named struct {
		kind kind
		name string
	}
	uses := map[named]int{}
	for i, s := range all {
		place := fmt.Sprintf("source %d of %d", i+1, len(all))
		k, state := by.add(s)
		if state == unknown && other != nil && other(s) {
			k, state = others, present
		}
		switch state {
		case unknown:
			bad.That(false, "%s: got %T, want a gate, a breaker, a throttle, a monitor, "+
				"or a retry, stream or broker meter%s", place, s, more)
			continue
		case absent:
			bad.That(false, "%s: got a nil %s, want %s", place, k.name, k.from)
			continue
		case present:
		}
		name := s.Name()
		use := named{k, name}
		uses[use]++
		switch {
		case name == "":
			bad.That(false, "%s: got %s, want %s", place, k.zero, k.from)
		case uses[use] == 1:
			bad.That(utf8.ValidString(name), "%s name: got %q, want valid UTF-8", k.name, name)
		case uses[use] == 2:
			bad.That(false, "%s name: got %q more than once, want one for each (%s)", k.name, name, k.by)
		}
	}
	return by
}

// A state says whether a source is of a known kind and not nil.
type state int

const (
	unknown state = iota
	absent
	present
)

func (by *Kinds) add(s Source) (kind, state) {
	switch s := s.(type) {
	case *admit.Gate:
		return gates, keep(&by.Gates, s)
	case *breaker.Breaker:
		return breakers, keep(&by.Breakers, s)
	case *throttle.Throttle:
		return throttles, keep(&by.Throttles, s)
	case *retry.Meter:
		return retries, keep(&by.Retries, s)
	case *streamcredit.Meter:
		return streams, keep(&by.Streams, s)
	case *pressure.Monitor:
		return monitors, keep(&by.Monitors, s)
	case *broker.Meter:
		return brokers, keep(&by.Brokers, s)
	}
	return kind{}, unknown
}

func keep[T any](all *[]*T, s *T) state {
	if s == nil {
		return absent
	}
	*all = append(*all, s)
	return present
}
