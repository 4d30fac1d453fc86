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
	if r.Waited > 0 {
		fmt.Fprintf(&b, " It had waited for %s.", inWords(r.Waited))
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
	full := fmt.Sprintf("%d of %d permits were in use and %s waited", r.InFlight, r.Limit, many(int64(r.Queue), "call"))
	pace := ""
	if r.Pace > 0 {
		pace = fmt.Sprintf(", one permit comes back every %s", inWords(r.Pace))
	}
	switch r.Reason {
	case admit.QueueFull:
		if r.Standing {
			return fmt.Sprintf("The queue stands for class %s, because more calls came than were served: %s%s.", class, full, pace)
		}
		return fmt.Sprintf("No permit and no place in the queue was free in time: %s%s.", full, pace)
	case admit.Evicted:
		return fmt.Sprintf("It gave up its place to a call of a higher class, or of a tenant that has less: %s.", full)
	case admit.DeadlineTooClose:
		return fmt.Sprintf("It could not end before its deadline: %s%s.", full, pace)
	case admit.WaitedTooLong:
		return fmt.Sprintf("It reached the longest wait that the queue allows: %s%s.", full, pace)
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
