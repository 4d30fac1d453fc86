package debug

import (
	"fmt"
	"strings"

	"github.com/weir-go/weir/admit"
)

// explain says in words why a call was refused, with the numbers of that moment.
func explain(r *admit.RefusedCall, class string) string {
	var b strings.Builder
	fmt.Fprint(&b, because(r, class))
	if r.Wait > 0 {
		fmt.Fprintf(&b, " It had waited for %s.", inWords(r.Wait))
	}
	switch {
	case r.TimeLeft > 0:
		fmt.Fprintf(&b, " Its caller had %s left.", inWords(r.TimeLeft))
	case r.TimeLeft < 0:
		fmt.Fprint(&b, " Its deadline had passed.")
	}
	if r.RetryAfter > 0 {
		fmt.Fprintf(&b, " It was told to come back after %s.", inWords(r.RetryAfter))
	}
	return b.String()
}

// because says why a call was refused.
func because(r *admit.RefusedCall, class string) string {
	full := state(r, class)
	switch r.Reason {
	case admit.QueueFull:
		if r.Standing {
			return fmt.Sprintf("The queue stands for class %s, because more calls came than were served: %s.", class, full)
		}
		return fmt.Sprintf("No permit and no place in the queue was free in time: %s.", full)
	case admit.Evicted:
		return fmt.Sprintf("It gave up its place to a call of a higher class, or of a tenant that has less: %s.", full)
	case admit.DeadlineTooClose:
		return fmt.Sprintf("It could not end before its deadline: %s.", full)
	case admit.WaitedTooLong:
		return fmt.Sprintf("It reached the longest wait that the queue allows: %s.", full)
	case admit.Draining:
		return "The server is shutting down."
	case admit.OverShare:
		return fmt.Sprintf("Its tenant has more than an equal share, and other tenants want theirs: %s.", full)
	case admit.OverQuota:
		return fmt.Sprintf("The quota of its class or tenant is used up. The load of the server does not matter: %s.", full)
	case admit.TooManyOpen:
		return fmt.Sprintf("As many calls are open as WithMaxOpen allows: %s.", full)
	case admit.MemoryPressure:
		return fmt.Sprintf("The process is close to its memory limit, so calls of class %s are refused.", class)
	case admit.GCPressure:
		return fmt.Sprintf("The garbage collector takes the processors, so calls of class %s are refused.", class)
	case admit.ProcessorPressure:
		return fmt.Sprintf("Goroutines wait for processors, so calls of class %s are refused.", class)
	case admit.UnderPressure:
		return fmt.Sprintf("A resource of the program runs out, so calls of class %s are refused.", class)
	}
	return r.Reason.String() + "."
}

// state describes the gate as it refused a call.
func state(r *admit.RefusedCall, class string) string {
	text := fmt.Sprintf("%d of %d permits were in use and %s waited", r.InFlight, r.Limit, many(int64(r.Queue), "call"))
	switch free := r.Limit - r.InFlight; {
	case !isOfQueue(r.Reason):
	case atMax(r):
		text += fmt.Sprintf(", and class %s held %d, which is all that its Max allows", class, r.Held)
	case free > 0:
		text += fmt.Sprintf(". %d %s free, but kept for the share of another class or for other tenants, "+
			"or fewer than the call costs", free, verb(int64(free), "was", "were"))
	case r.Pace > 0:
		text += fmt.Sprintf(", one permit comes back every %s", inWords(r.Pace))
	}
	return text
}

// isOfQueue reports whether a call was refused because it would have had to wait.
func isOfQueue(why admit.Reason) bool {
	return why == admit.QueueFull || why == admit.Evicted || why == admit.DeadlineTooClose || why == admit.WaitedTooLong
}

// atMax reports whether the Max of its class kept a call from the permits.
func atMax(r *admit.RefusedCall) bool { return r.Most > 0 && r.Held >= r.Most }

// remedies name the change to make for each reason, if there is one.
var remedies = [admit.NumReasons]string{
	admit.QueueFull: "More calls come than this process can serve. Add instances or make the calls quicker. " +
		"A longer queue or a higher limit would only make them late.",
	admit.Evicted: "Calls of a higher class or of smaller tenants took the places. Add instances if these calls matter as much.",
	admit.DeadlineTooClose: "The callers give less time than a call takes here now. " +
		"Give them longer deadlines, or make the calls quicker.",
	admit.WaitedTooLong: "Find out why permits come back slowly, and add instances. " +
		"A longer MaxWait helps only callers with more patience.",
	admit.Draining: "That is as it should be while the server stops.",
	admit.OverShare: "One tenant sends more than its part. Ask it to send less, or add instances. " +
		"The table of tenants shows which.",
	admit.OverQuota:         "Raise the quota if this server should serve more of these calls. Otherwise it works as configured.",
	admit.TooManyOpen:       "Look for streams that do not end. Raise the bound of WithMaxOpen only if there is memory for more.",
	admit.MemoryPressure:    "Find out what holds the memory, or give the process more. Another limit does not help.",
	admit.GCPressure:        "Allocate less, or give the process more memory, so that the garbage collector runs less often.",
	admit.ProcessorPressure: "Give the process more processors, or add instances. A limit of processors in a container counts, too.",
	admit.UnderPressure:     "See under Pressure which resource runs out, and free it or provide more.",
}

// remedyOfMax is the remedy where the Max of a class is the cause.
const remedyOfMax = "Its Max in WithClassConfig keeps the class from more permits. Raise that if these calls should have more."

// remedy names the change to make for the most frequent refusals of a gate.
func (r *recent) remedy(i *admit.Inspection) string {
	class, why, most := 0, 0, uint64(0)
	for c := range r.refused {
		for w, n := range r.refused[c] {
			if n > most {
				class, why, most = c, w, n
			}
		}
	}
	for n := len(i.Refusals) - 1; n >= 0; n-- {
		if one := &i.Refusals[n]; int(one.Class) == class && int(one.Reason) == why {
			if isOfQueue(one.Reason) && atMax(one) {
				return remedyOfMax
			}
			break
		}
	}
	return remedies[why]
}
