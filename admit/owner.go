package admit

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"sync"
	"weak"

	"github.com/weir-go/weir/limit"
)

// owners says which gate an algorithm belongs to, by the algorithm's address. It keeps
// neither alive. While a gate lives it holds its algorithm, so the address is not that
// of another. Once the gate is gone its entry means nothing.
var owners sync.Map // of ownership, by uintptr

type ownership struct {
	gate weak.Pointer[Gate]
	name string
}

// address identifies an algorithm that has a state of its own to be confused; it is 0
// for others.
func address(a limit.Algorithm) uintptr {
	v := reflect.ValueOf(a)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Size() == 0 {
		return 0
	}
	return v.Pointer()
}

// check returns an error that names everything that is wrong with a configuration. If
// nothing is, the gate owns its algorithm from then on.
func (g *Gate) check(next *config) error {
	errs := next.validate()
	if g.shards == nil {
		errs = append(errs, errors.New("got a zero Gate, want one from New"))
	}
	if g.cfg.name != "" && next.name != g.cfg.name {
		errs = append(errs, fmt.Errorf("a gate cannot be renamed: got %q, want %q", next.name, g.cfg.name))
	}
	if next.algorithmSet {
		if err := g.own(next.algorithm, next.name, len(errs) == 0); err != nil {
			errs = append(errs, err)
		}
	}
	return joinConfig(errs)
}

// joinConfig returns one error for all that is wrong.
func joinConfig(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
}

// own makes an algorithm a gate's instead of the one that it had, or only looks whether
// it could. It returns an error if another gate has it. It is called once at a time for
// each gate.
func (g *Gate) own(a limit.Algorithm, name string, take bool) error {
	at, mine := address(a), ownership{weak.Make(g), name}
	for at != 0 {
		before, taken := owners.Load(at)
		if taken {
			other := before.(ownership) //nolint:forcetypeassert // the map holds nothing else
			switch {
			case other.gate == mine.gate:
				return nil
			case other.gate.Value() != nil:
				return fmt.Errorf("limit: got the algorithm of another gate (%q), want one of its own", other.name)
			}
		}
		if !take || taken && owners.CompareAndSwap(at, before, mine) {
			break
		}
		if _, taken = owners.LoadOrStore(at, mine); !taken {
			break
		}
	}
	if take {
		g.disown()
		g.owns = at
		g.unowned = runtime.AddCleanup(g, func(at uintptr) { owners.CompareAndDelete(at, mine) }, at)
	}
	return nil
}

// disown lets another gate have the algorithm.
func (g *Gate) disown() {
	g.unowned.Stop()                                                            // it need not wait for the gate's end
	if v, ok := owners.Load(g.owns); ok && v.(ownership).gate == weak.Make(g) { //nolint:forcetypeassert // as above
		owners.Delete(g.owns)
	}
	g.owns = 0
}

// askLimit asks a new algorithm for its limit, once.
func (c *config) askLimit() (err error) {
	if v := reflect.ValueOf(c.algorithm); !v.IsValid() {
		return errors.New("limit: got nil, want an algorithm")
	} else if k := v.Kind(); (k == reflect.Pointer || k == reflect.Map || k == reflect.Func) && v.IsNil() {
		return fmt.Errorf("limit: got a nil %T, want one from its constructor", c.algorithm)
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("limit: got a panic from the Limit of a %T (%v), want 1 to %d", c.algorithm, v, limit.Max)
		}
	}()
	n := c.algorithm.Limit()
	c.initial = n
	switch {
	case n == 0:
		return fmt.Errorf("limit: got 0 from the algorithm, want 1 to %d: a %T has to be made by its constructor", limit.Max, c.algorithm)
	case n < 1 || n > limit.Max:
		return fmt.Errorf("limit: got %d from the algorithm, want 1 to %d", n, limit.Max)
	}
	return nil
}

// Adapts reports whether the limit is one of package limit that learns from the calls
// that end. Such a limit learns nothing from streams.
func (g *Gate) Adapts() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch g.cfg.algorithm.(type) {
	case *limit.Adaptive, *limit.AIMD, *limit.Vegas, *limit.Gradient:
		return true
	}
	return false
}

// Room returns how many calls the gate is for at a time: those that its limit lets run
// now, and those that may wait. A queue without a Capacity counts as long as the limit,
// and at least 32. Where open calls are bounded it is that bound: see [WithMaxOpen].
func (g *Gate) Room() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := g.load().limit()
	switch {
	case g.cfg.maxOpen > 0:
		return g.cfg.maxOpen
	case g.cfg.noQueue:
		return n
	case g.cfg.queue.Capacity > 0:
		return n + g.cfg.queue.Capacity
	}
	return n + max(n, 32)
}
