package metrics

import (
	"errors"

	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/internal/sources"
)

// ErrConfig is wrapped by the errors of [NewCollector].
var ErrConfig = errors.New("metrics: invalid configuration")

// A Source has numbers that a [Collector] shows. It is an [*admit.Gate], a
// [*breaker.Breaker], a [*throttle.Throttle], a [*retry.Meter], a [*streamcredit.Meter], a
// [*pressure.Monitor] or a [*broker.Meter].
type Source interface {
	// Name returns the value of the label that the metrics of the source have.
	Name() string
}

// Sources returns sources of one type for [NewCollector].
//
//	collector, err := metrics.NewCollector(metrics.Sources(gates.All()...)...)
func Sources[S Source](all ...S) []Source {
	list := make([]Source, len(all))
	for i, s := range all {
		list[i] = s
	}
	return list
}

// byKind sorts sources. The error names every mistake.
func byKind(all []Source) (sources.Kinds, error) {
	var bad check.Errors
	by := sources.Sort(all, &bad, nil, "")
	return by, bad.Err(ErrConfig)
}
