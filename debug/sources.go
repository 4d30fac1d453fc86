package debug

import (
	"errors"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/internal/sources"
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
	list := make([]Source, len(all))
	for i, s := range all {
		list[i] = s
	}
	return list
}

// kinds holds sources by their kind, in the order in which they were given.
type kinds struct {
	sources.Kinds

	others []Describer
}

// byKind sorts sources. The error names every mistake.
func byKind(all []Source) (kinds, error) {
	var bad check.Errors
	var by kinds
	by.Kinds = sources.Sort(all, &bad, func(s Source) bool {
		d, ok := s.(Describer)
		if ok {
			by.others = append(by.others, d)
		}
		return ok
	}, ", or a Describer")
	return by, bad.Err(ErrConfig)
}
