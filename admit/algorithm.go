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

// owners maps the address of an algorithm to the gate that owns it. It keeps neither of
// them alive. A living gate holds its algorithm, so no other algorithm can have the same
// address. Once the gate is gone, the entry means nothing.
var owners sync.Map // of owner, by uintptr

type owner struct {
	gate weak.Pointer[Gate]
	name string
}

// An ownership is a gate's entry in owners. The gate's lock guards it. Two gates must not
// share an algorithm, because it would learn from both.
type ownership struct {
	at      uintptr         // the algorithm's address, or 0
	cleanup runtime.Cleanup // deletes the entry when the gate is gone
}

// own makes a the algorithm of g, in place of the one before. Unless take is true, it
// only checks. It returns an error if another gate owns a.
func (o *ownership) own(g *Gate, a limit.Algorithm, name string, take bool) error {
	at, mine := address(a), owner{weak.Make(g), name}
	for at != 0 {
		before, taken := owners.Load(at)
		if taken {
			other := before.(owner) //nolint:forcetypeassert // the map holds nothing else
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
		o.disown(g)
		o.at = at
		o.cleanup = runtime.AddCleanup(g, func(at uintptr) { owners.CompareAndDelete(at, mine) }, at)
	}
	return nil
}

// disown lets another gate own the algorithm.
func (o *ownership) disown(g *Gate) {
	o.cleanup.Stop()
	if v, ok := owners.Load(o.at); ok && v.(owner).gate == weak.Make(g) { //nolint:forcetypeassert // as above
		owners.Delete(o.at)
	}
	o.at = 0
}

// address identifies an algorithm. It returns 0 for one without state, which gates may
// share.
func address(a limit.Algorithm) uintptr {
	v := reflect.ValueOf(a)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Type().Elem().Size() == 0 {
		return 0
	}
	return v.Pointer()
}

// initialLimit returns the limit of a new algorithm, or an error if it has no valid one.
func initialLimit(a limit.Algorithm) (n int, err error) {
	if v := reflect.ValueOf(a); !v.IsValid() {
		return 0, errors.New("limit: got nil, want an algorithm")
	} else if k := v.Kind(); (k == reflect.Pointer || k == reflect.Map || k == reflect.Func) && v.IsNil() {
		return 0, fmt.Errorf("limit: got a nil %T, want one from its constructor", a)
	}
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("limit: got a panic from the Limit of a %T (%v), want 1 to %d", a, v, limit.Max)
		}
	}()
	switch n = a.Limit(); {
	case n == 0:
		return 0, fmt.Errorf("limit: got 0 from the algorithm, want 1 to %d: a %T has to be made by its constructor", limit.Max, a)
	case n < 1 || n > limit.Max:
		return 0, fmt.Errorf("limit: got %d from the algorithm, want 1 to %d", n, limit.Max)
	}
	return n, nil
}

// smallestLimit returns the smallest limit of an algorithm, or 0 if it does not say.
func smallestLimit(a limit.Algorithm) (n int) {
	defer func() {
		if recover() != nil { // initialLimit reports a nil pointer
			n = 0
		}
	}()
	if f, ok := a.(limit.Floored); ok {
		return f.Min()
	}
	return 0
}
