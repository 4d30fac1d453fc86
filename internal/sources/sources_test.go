package sources_test

import (
	"errors"
	"testing"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/internal/check"
	"github.com/weir-go/weir/internal/sources"
)

type cache string

func (c cache) Name() string { return string(c) }

// Sources of other kinds are checked as all others are, if the caller knows them.
func TestSourcesOfOtherKinds(t *testing.T) {
	a := broker.NewMeter("a")
	all := []sources.Source{a, cache("a"), cache("a"), cache(""), cache("b\xff"), (*broker.Meter)(nil), nil}
	for _, c := range []struct {
		other func(sources.Source) bool
		want  string
	}{
		{
			func(s sources.Source) bool { _, ok := s.(cache); return ok },
			"kind: source name: got \"a\" more than once, want one for each (its Name)\n" +
				"source 4 of 7: got a source without a name, want one with a name\n" +
				"source name: got \"b\\xff\", want valid UTF-8\n" +
				"source 6 of 7: got a nil broker meter, want one with a name from broker.NewMeter\n" +
				"source 7 of 7: got <nil>, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a cache",
		},
		{nil, "kind: " +
			"source 2 of 7: got sources_test.cache, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a cache\n" +
			"source 3 of 7: got sources_test.cache, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a cache\n" +
			"source 4 of 7: got sources_test.cache, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a cache\n" +
			"source 5 of 7: got sources_test.cache, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a cache\n" +
			"source 6 of 7: got a nil broker meter, want one with a name from broker.NewMeter\n" +
			"source 7 of 7: got <nil>, want a gate, a breaker, a throttle, a monitor, or a retry, stream or broker meter, or a cache"},
	} {
		var bad check.Errors
		by := sources.Sort(all, &bad, c.other, ", or a cache")
		if err := bad.Err(errors.New("kind")); err == nil || err.Error() != c.want {
			t.Errorf("Sort: got %v, want %s", err, c.want)
		}
		if len(by.Brokers) != 1 || by.Brokers[0] != a {
			t.Errorf("Brokers: got %v, want the meter a", by.Brokers)
		}
	}
}
