package ledger

// An OutState is the state of a direction at the end that sends.
type OutState uint8

// The states of a direction at the end that sends.
const (
	// OutOpen allows elements as far as there is credit, and further demand.
	OutOpen OutState = iota
	// OutLastCredit follows the receiver's half-close. No demand and no report follows, and the
	// remaining credit may be used.
	OutLastCredit
	// OutExhausted is OutLastCredit after the credit is used. Only the terminal may be written.
	OutExhausted
	// OutClosed follows this end's terminal. The receiver may still report consumed elements.
	OutClosed
	// OutUnheard is OutClosed after the receiver has half-closed.
	OutUnheard
	// OutCanceled follows the receiver's Cancel. Nothing more of this direction may be written.
	OutCanceled
	// OutReturned follows the end of the call with OK. Nothing more may be written.
	OutReturned
	// OutFailed means that the stream is broken, or that one of its ends broke the protocol.
	OutFailed

	outStates
)

// An OutEvent is something that happens to a direction at the end that sends.
type OutEvent uint8

// The events of a direction at the end that sends.
const (
	OutRequest   OutEvent = iota // the receiver's Request arrives
	OutElement                   // this end writes an element
	OutSpent                     // no credit is left
	OutBurn                      // this end writes Drained
	OutTerminal                  // this end writes Complete or Error
	OutHalfClose                 // the receiver's half of the stream ends
	OutCancel                    // the receiver's Cancel arrives
	OutReturn                    // the call ends with OK, as a client sees it
	OutFail                      // the stream ends with anything else

	outEvents
)

// A step is the effect of an event in a state.
type step struct {
	to  uint8
	act act
}

type act uint8

const (
	enter   act = iota // go to the state
	refuse             // this end may not do that now; the state stays
	illegal            // the peer may not do that now, AFTER_TERMINAL
)

func (s step) next() OutState { return OutState(s.to) }

// outTable is the table in DESIGN.md.
var outTable = func() (t [outStates][outEvents]step) {
	const (
		open, last, spent, closed = OutOpen, OutLastCredit, OutExhausted, OutClosed
		unheard, cancel, ret, bad = OutUnheard, OutCanceled, OutReturned, OutFailed
	)
	const refused, broken = outStates, outStates + 1
	for state, row := range [outStates][outEvents]OutState{
		//              Request  Element  Spent    Burn     Terminal HalfClose Cancel  Return Fail
		OutOpen:       {open, open, open, open, closed, last, cancel, ret, bad},
		OutLastCredit: {broken, last, spent, last, unheard, last, broken, ret, bad},
		OutExhausted:  {broken, refused, spent, spent, unheard, spent, broken, ret, bad},
		OutClosed:     {closed, refused, closed, refused, refused, unheard, cancel, ret, bad},
		OutUnheard:    {broken, refused, unheard, refused, refused, unheard, broken, ret, bad},
		OutCanceled:   {cancel, refused, cancel, refused, refused, cancel, cancel, cancel, cancel},
		OutReturned:   {ret, refused, ret, refused, refused, ret, ret, ret, ret},
		OutFailed:     {bad, refused, bad, refused, refused, bad, bad, bad, bad},
	} {
		for event, to := range row {
			switch to {
			case refused:
				t[state][event] = step{uint8(state), refuse}
			case broken:
				t[state][event] = step{uint8(state), illegal}
			default:
				t[state][event] = step{uint8(to), enter}
			}
		}
	}
	return t
}()

// Next returns the state after e. If this end may not do e, or the peer breaks the protocol with
// it, ok is false and the state stays.
func (s OutState) Next(e OutEvent) (next OutState, ok bool) {
	t := outTable[s][e]
	return t.next(), t.act == enter
}

// Sends reports whether elements may be written, as far as there is credit.
func (s OutState) Sends() bool { return s == OutOpen || s == OutLastCredit }

// Terminates reports whether the terminal may be written.
func (s OutState) Terminates() bool { return s <= OutExhausted }

// Hears reports whether the receiver may still request elements or report consumed ones.
func (s OutState) Hears() bool { return s == OutOpen || s == OutClosed }

// Ended reports whether the direction is over for its receiver, too.
func (s OutState) Ended() bool { return s >= OutCanceled }

// String returns the name of the state in DESIGN.md.
func (s OutState) String() string {
	return name(s, "Open", "LastCredit", "Exhausted", "Closed", "Unheard", "Canceled", "Returned", "Failed")
}

// String returns the name of the event in DESIGN.md.
func (e OutEvent) String() string {
	return name(e, "Request", "Element", "Spent", "Burn", "Terminal", "HalfClose", "Cancel", "Return", "Fail")
}

func name[T ~uint8](n T, names ...string) string {
	if int(n) < len(names) {
		return names[n]
	}
	return "none"
}
