package admit

import "fmt"

// A Call is what a gate is told of a call that wants to run. The zero Call is of
// class Default, of nobody in particular, and takes one permit.
type Call struct {
	// Class is what kind of call it is. One that the gate does not know counts
	// as Background.
	Class Class
	// Tenant is whose call it is. Tenants of one class that compete get equal
	// shares of it; calls without a tenant are together one. The gate keeps the
	// string for as long as the tenant has a call that runs or waits, and
	// nothing afterwards: there may be any number of them. Take it from what was
	// authenticated, never from a header that anyone can write. Give all calls
	// of a gate a tenant, or none.
	Tenant string
	// Cost is how many permits the call takes; zero and less mean one. A call
	// that costs more than the limit, when it comes or when its turn does, takes
	// all permits there are then.
	Cost int

	quota quotaState
}

// An Outcome is how a call ended, as the limit sees it.
type Outcome uint8

const (
	// Ignored says nothing about the load: the caller left, the handler
	// panicked, the arguments were wrong. It is the zero Outcome.
	Ignored Outcome = iota
	// Success is a call that ended well; its latency is a sample.
	Success
	// Overload is a call that failed because something was too busy.
	Overload

	// NumOutcomes is the number of outcomes. Each is less.
	NumOutcomes = 3
)

// String returns the outcome in lower case, as metrics name it.
func (o Outcome) String() string {
	return name("outcome", int(o), "ignored", "success", "overload")
}

func name(what string, i int, names ...string) string {
	if i < len(names) {
		return names[i]
	}
	return fmt.Sprintf("%s(%d)", what, i)
}
