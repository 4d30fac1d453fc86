package debug

import (
	"errors"
	"fmt"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/pressure"
	"github.com/weir-go/weir/streamcredit"
)

// ErrConfig is wrapped by the errors of [NewHandler].
var ErrConfig = errors.New("debug: invalid configuration")

// A Source has a state that a [Handler] shows. It is an [*admit.Gate], a [*breaker.Breaker], a
// [*throttle.Throttle], a [*retry.Meter], a [*streamcredit.Meter], a [*broker.Meter], a
// [*pressure.Monitor] or a [Describer].
type Source interface {
	// Name returns the name under which the page shows the source.
	Name() string
}

// A Describer is a source of another kind, such as a cache.
type Describer interface {
	Source
	// Describe returns the kind of the source, as in "cache", and its numbers. A Handler calls
	// it for each snapshot, one call at a time. It must not block. A panic shows as a field.
	Describe() (kind string, fields []Field)
}

// A Field is one number or word of a [Describer].
type Field struct {
	// Name names the value.
	Name string
	// Value is formatted for people, with its unit.
	Value string
}

// Sources returns sources of one type for [NewHandler].
//
//	page, err := debug.NewHandler(debug.Sources(gates.All()...)...)
func Sources[S Source](all ...S) []Source {
	sources := make([]Source, len(all))
	for i, s := range all {
		sources[i] = s
	}
	return sources
}

// kinds holds sources by their kind, in the order in which they were given.
type kinds struct {
	gates     []*admit.Gate
	breakers  []*breaker.Breaker
	throttles []*throttle.Throttle
	retries   []*retry.Meter
	meters    []*streamcredit.Meter
	monitors  []*pressure.Monitor
	brokers   []*broker.Meter
	others    []Describer
}

// byKind sorts sources. The error names every mistake.
func byKind(sources []Source) (by kinds, err error) {
	var errs []error
	if len(sources) == 0 {
		errs = append(errs, errors.New("sources: got none, want at least one"))
	}
	seen := map[string]bool{}
	for i, s := range sources {
		kind, isNil := by.add(s)
		switch {
		case kind == "":
			errs = append(errs, fmt.Errorf(
				"source %d of %d: got %T, want a gate, a breaker, a throttle, a meter of retries, streams or a broker, "+
					"a monitor or a Describer", i+1, len(sources), s))
			continue
		case isNil || s.Name() == "":
			errs = append(errs, fmt.Errorf(
				"source %d of %d: got a nil, zero or nameless %s, want one with a name", i+1, len(sources), kind))
			continue
		}
		key := kind + " " + s.Name()
		if seen[key] {
			errs = append(errs, fmt.Errorf("%s name: got %q more than once, want one for each", kind, s.Name()))
		}
		seen[key] = true
	}
	if len(errs) > 0 {
		return kinds{}, fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	return by, nil
}

// add adds a source. It returns its kind, or "" if it has none, and whether it is a nil
// pointer of one of the types of weir.
func (by *kinds) add(s Source) (kind string, isNil bool) {
	switch s := s.(type) {
	case *admit.Gate:
		by.gates = append(by.gates, s)
		return "gate", s == nil
	case *breaker.Breaker:
		by.breakers = append(by.breakers, s)
		return "breaker", s == nil
	case *throttle.Throttle:
		by.throttles = append(by.throttles, s)
		return "throttle", s == nil
	case *retry.Meter:
		by.retries = append(by.retries, s)
		return "meter of retries", s == nil
	case *streamcredit.Meter:
		by.meters = append(by.meters, s)
		return "meter", s == nil
	case *pressure.Monitor:
		by.monitors = append(by.monitors, s)
		return "monitor", s == nil
	case *broker.Meter:
		by.brokers = append(by.brokers, s)
		return "broker", s == nil
	case Describer:
		by.others = append(by.others, s)
		return "source", false
	}
	return "", false
}
