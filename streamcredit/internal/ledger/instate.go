package ledger

// An InState is the state of a direction at the end that receives.
type InState uint8

// The states of a direction at the end that receives.
const (
	// InOpen allows elements to arrive as requested, and this end to request more.
	InOpen InState = iota
	// InDraining follows a Request with drain. This end requests nothing until Drained has
	// arrived.
	InDraining
	// InEnded follows the sender's terminal. The application gets the buffered elements, then the
	// end.
	InEnded
	// InFailed follows a failure of the stream. The application gets the buffered elements, then
	// the error.
	InFailed
	// InCanceled means that this end wants no more elements. Elements that still arrive are
	// dropped.
	InCanceled
	// InClosed is InCanceled after the sender's terminal has arrived.
	InClosed

	inStates
)

// An InEvent is something that happens to a direction at the end that receives.
type InEvent uint8

// The events of a direction at the end that receives.
const (
	InElement   InEvent = iota // an element arrives
	InTerminal                 // Complete or Error arrives
	InDrained                  // Drained arrives
	InHalfClose                // the sender's half of the stream ends without a failure
	InDrain                    // this end starts a drain
	InRequest                  // this end requests elements
	InCancel                   // this end cancels, or its handler has returned
	InFail                     // the stream fails

	inEvents
)

// unexpected is an unsolicited event of the peer, UNEXPECTED_FRAME.
const unexpected = illegal + 1

// inTable is the table in DESIGN.md.
var inTable = func() (t [inStates][inEvents]step) {
	const (
		open, drain, ended       = InOpen, InDraining, InEnded
		failed, canceled, closed = InFailed, InCanceled, InClosed
	)
	const refused, broken, unasked = inStates, inStates + 1, inStates + 2
	for state, row := range [inStates][inEvents]InState{
		//           Element   Terminal Drained  HalfClose Drain  Request  Cancel   Fail
		InOpen:     {open, ended, unasked, ended, drain, open, canceled, failed},
		InDraining: {drain, ended, open, ended, drain, refused, canceled, failed},
		InEnded:    {broken, broken, broken, ended, refused, refused, closed, ended},
		InFailed:   {failed, ended, failed, ended, refused, refused, canceled, failed},
		InCanceled: {canceled, closed, canceled, closed, refused, refused, canceled, canceled},
		InClosed:   {broken, broken, broken, closed, refused, refused, closed, closed},
	} {
		for event, to := range row {
			switch to {
			case refused:
				t[state][event] = step{uint8(state), refuse}
			case broken:
				t[state][event] = step{uint8(state), illegal}
			case unasked:
				t[state][event] = step{uint8(state), unexpected}
			default:
				t[state][event] = step{uint8(to), enter}
			}
		}
	}
	return t
}()

// Next returns the state after e. If this end may not do e, or the peer breaks the protocol with
// it, ok is false and the state stays.
func (s InState) Next(e InEvent) (next InState, ok bool) {
	t := inTable[s][e]
	return InState(t.to), t.act == enter
}

// Violation returns the violation if the peer breaks the protocol with e, and nil otherwise.
func (s InState) Violation(e InEvent) *Violation {
	got := name(e, "an element", "a second one", "Drained")
	switch inTable[s][e].act {
	case illegal:
		return violation(AfterTerminal, "nothing after Complete or Error", "%s", got)
	case unexpected:
		return violation(UnexpectedFrame, "one after a Request with drain", "%s", got)
	default:
		return nil
	}
}

// Asks reports whether elements may be requested.
func (s InState) Asks() bool { return s == InOpen }

// Live reports whether the application waits for elements that may still arrive.
func (s InState) Live() bool { return s <= InDraining }

// Drops reports whether arriving and buffered elements are dropped.
func (s InState) Drops() bool { return s >= InCanceled }

// Terminated reports whether the sender's terminal has arrived.
func (s InState) Terminated() bool { return s == InEnded || s == InClosed }

// String returns the name of the state in DESIGN.md.
func (s InState) String() string {
	return name(s, "Open", "Draining", "Ended", "Failed", "Canceled", "Closed")
}

// String returns the name of the event in DESIGN.md.
func (e InEvent) String() string {
	return name(e, "Element", "Terminal", "Drained", "HalfClose", "Drain", "Request", "Cancel", "Fail")
}
