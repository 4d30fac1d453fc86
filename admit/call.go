package admit

import "fmt"

// A Call describes a call that wants to run. The zero Call has the class Default, no
// tenant, and a cost of one permit.
type Call struct {
	// Class is the kind of the call. A class that the gate does not have counts as
	// Background.
	Class Class
	// Tenant names the caller that shares the gate with others. Competing tenants of a
	// class get equal parts of it. Calls without a tenant count as one tenant together.
	// The gate keeps the string only while the tenant has calls that run or wait, so the
	// number of tenants is not bounded. Take it from an authenticated identity, never
	// from a header that anyone can write. Give all calls of a gate a tenant, or none.
	Tenant string
	// Cost is the number of permits that the call takes. Zero and less mean one. A cost
	// above the limit takes all permits.
	Cost int
	// Method names the call for hooks and pages, as a full method name does. It decides
	// nothing. The gate keeps the string only while the call runs or waits.
	Method string
}

// An Outcome is how a call ended, as the limit sees it: Ignored, Success or Overload.
type Outcome uint8

// The outcomes.
const (
	// Ignored says nothing about the load. For example, the caller left, the handler
	// panicked, or the arguments were wrong. It is the zero Outcome.
	Ignored Outcome = iota
	// Success is a call that ended well. The limit learns from its latency.
	Success
	// Overload is a call that failed because something was too busy.
	Overload

	// NumOutcomes is the number of outcomes. Every Outcome is less.
	NumOutcomes = 3
)

// String returns the outcome in lower case, as in the labels of metrics.
func (o Outcome) String() string {
	return name("outcome", int(o), "ignored", "success", "overload")
}

// name returns the name at index i, or "kind(i)" if there is none.
func name(kind string, i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", kind, i)
}
