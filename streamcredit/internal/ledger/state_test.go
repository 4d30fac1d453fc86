package ledger_test

import (
	"cmp"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

var outStates = []ledger.OutState{
	ledger.OutOpen, ledger.OutLastCredit, ledger.OutExhausted, ledger.OutClosed,
	ledger.OutUnheard, ledger.OutCanceled, ledger.OutReturned, ledger.OutFailed,
}

var outEvents = []ledger.OutEvent{
	ledger.OutRequest, ledger.OutElement, ledger.OutSpent, ledger.OutBurn, ledger.OutTerminal,
	ledger.OutHalfClose, ledger.OutCancel, ledger.OutReturn, ledger.OutFail,
}

var inStates = []ledger.InState{
	ledger.InOpen, ledger.InDraining, ledger.InEnded, ledger.InFailed, ledger.InCanceled, ledger.InClosed,
}

var inEvents = []ledger.InEvent{
	ledger.InElement, ledger.InTerminal, ledger.InDrained, ledger.InHalfClose,
	ledger.InDrain, ledger.InRequest, ledger.InCancel, ledger.InFail,
}

// designed returns the table in DESIGN.md that follows the line title, by state and event. "refuse" is an event
// that this end may not cause, and the reason of a violation is an event with which the peer breaks the protocol.
func designed(t *testing.T, title string) map[string]map[string]string {
	t.Helper()
	design, err := os.ReadFile("../../../DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(design), "\n"+title+"\n\n|")
	if !found {
		t.Fatalf("got no table %q in DESIGN.md, want one", title)
	}
	lines, _, _ := strings.Cut(after, "\n\n")
	var rows [][]string
	for line := range strings.Lines(lines) {
		cells := strings.Split(strings.Trim(line, "|\n"), "|")
		for i, cell := range cells {
			cell, _, _ = strings.Cut(cell, "(") // a remark
			cells[i] = strings.TrimSpace(cell)
		}
		rows = append(rows, cells)
	}
	table := map[string]map[string]string{}
	for _, row := range rows[2:] { // after the heads of the columns, and a rule
		if len(row) != len(rows[0]) {
			t.Fatalf("%s row %q: got %d columns, want %d", title, row, len(row), len(rows[0]))
		}
		for state := range strings.SplitSeq(row[0], ", ") {
			table[state] = map[string]string{}
			for i, event := range rows[0][1:] {
				short := map[string]string{"AT": ledger.AfterTerminal, "UF": ledger.UnexpectedFrame, "stays": state}
				table[state][event] = cmp.Or(short[row[i+1]], row[i+1])
			}
		}
	}
	return table
}

// complete checks that the table names each state and each event that there is.
func complete[S, E interface {
	~uint8
	String() string
}](t *testing.T, table map[string]map[string]string, states []S, events []E) {
	t.Helper()
	if S(len(states)).String() != "none" || E(len(events)).String() != "none" || len(table) != len(states) {
		t.Fatalf("got %d rows, %d states and %d events, want all that there are", len(table), len(states), len(events))
	}
	for _, s := range states {
		if len(table[s.String()]) != len(events) {
			t.Errorf("%v: got %d events in its row, want %d", s, len(table[s.String()]), len(events))
		}
	}
}

// Every event in every state leads where the table in DESIGN.md says.
func TestOutTable(t *testing.T) {
	table := designed(t, "The sending end:")
	complete(t, table, outStates, outEvents)
	for _, s := range outStates {
		for _, e := range outEvents {
			next, ok := s.Next(e)
			got := next.String()
			if !ok {
				if next != s {
					t.Errorf("%v in %v: is not allowed and goes to %v, want it to stay", e, s, next)
				}
				got = "refuse"
				if e == ledger.OutRequest || e == ledger.OutCancel {
					got = ledger.AfterTerminal
				}
			}
			if want := table[s.String()][e.String()]; got != want {
				t.Errorf("%v in %v: got %q, want %q", e, s, got, want)
			}
		}
	}
}

func TestInTable(t *testing.T) {
	table := designed(t, "The receiving end:")
	complete(t, table, inStates, inEvents)
	for _, s := range inStates {
		for _, e := range inEvents {
			next, ok := s.Next(e)
			got := next.String()
			if !ok {
				if next != s {
					t.Errorf("%v in %v: is not allowed and goes to %v, want it to stay", e, s, next)
				}
				if got = "refuse"; s.Violation(e) != nil {
					got = s.Violation(e).Reason
				}
			} else if v := s.Violation(e); v != nil {
				t.Errorf("%v in %v: got the violation %+v, want none of an event that is allowed", e, s, v)
			}
			if want := table[s.String()][e.String()]; got != want {
				t.Errorf("%v in %v: got %q, want %q", e, s, got, want)
			}
		}
	}
}

// The states that allow a thing are those of DESIGN.md: what may be written, and what may come.
func TestWhatStatesAllow(t *testing.T) {
	for _, s := range outStates {
		_, element := s.Next(ledger.OutElement)
		_, terminal := s.Next(ledger.OutTerminal)
		if s.Sends() != element || s.Terminates() != terminal {
			t.Errorf("%v: Sends %t and Terminates %t, want what its row says: %t and %t", s, s.Sends(), s.Terminates(), element, terminal)
		}
		if s.Sends() && !s.Terminates() {
			t.Errorf("%v: an element may be sent and no terminal, want both", s)
		}
	}
	for _, s := range inStates {
		if _, asks := s.Next(ledger.InRequest); s.Asks() != asks {
			t.Errorf("%v: Asks %t, want what its row says: %t", s, s.Asks(), asks)
		}
		if s.Terminated() != (s.Violation(ledger.InElement) != nil) {
			t.Errorf("%v: Terminated %t, want exactly the states in which an element is illegal", s, s.Terminated())
		}
		if s.Live() && (s.Drops() || s.Terminated()) {
			t.Errorf("%v: is live and drops or has ended", s)
		}
	}
}

// A ledger that goes through each event in each state gives the first reason for its end.
func TestOutKeepsTheFirstReason(t *testing.T) {
	first, second, left := errors.New("first"), errors.New("second"), errors.New("left")
	for name, c := range map[string]struct {
		play      func(o *ledger.Out)
		why, lost error
		state     ledger.OutState
	}{
		"nothing":            {func(*ledger.Out) {}, nil, nil, ledger.OutOpen},
		"close":              {func(o *ledger.Out) { o.Close(first) }, first, nil, ledger.OutClosed},
		"close, cancel":      {func(o *ledger.Out) { o.Close(first); o.End(ledger.OutCancel, second) }, first, second, ledger.OutCanceled},
		"cancel, close":      {func(o *ledger.Out) { o.End(ledger.OutCancel, first); o.Close(second) }, first, first, ledger.OutCanceled},
		"cancel, fail":       {func(o *ledger.Out) { o.End(ledger.OutCancel, first); o.End(ledger.OutFail, second) }, first, first, ledger.OutCanceled},
		"half-close, return": {func(o *ledger.Out) { o.HalfClose(); o.End(ledger.OutReturn, second) }, left, second, ledger.OutReturned},
		"half-close, close":  {func(o *ledger.Out) { o.HalfClose(); o.Close(first) }, left, nil, ledger.OutUnheard},
		"close, half-close":  {func(o *ledger.Out) { o.Close(first); o.HalfClose() }, first, nil, ledger.OutUnheard},
		"credit, half-close": {func(o *ledger.Out) { o.Request(1, 0); o.HalfClose() }, nil, nil, ledger.OutLastCredit},
		"credit, half-close, element": {func(o *ledger.Out) {
			o.Request(1, 0)
			o.HalfClose()
			o.Take(func() int { return 1 })
			o.Wrote()
		}, left, nil, ledger.OutExhausted},
		"credit, half-close, element that fails": {func(o *ledger.Out) {
			o.Request(1, 0)
			o.HalfClose()
			o.Take(func() int { return 1 })
			o.Restore(1)
		}, nil, nil, ledger.OutLastCredit},
		"credit, half-close during an element that fails": {func(o *ledger.Out) {
			o.Request(1, 0)
			o.Take(func() int { return 1 })
			o.HalfClose()
			o.Restore(1)
		}, nil, nil, ledger.OutLastCredit},
		"credit, half-close during an element": {func(o *ledger.Out) {
			o.Request(1, 0)
			o.Take(func() int { return 1 })
			o.HalfClose()
			o.Wrote()
		}, left, nil, ledger.OutExhausted},
		"credit, half-close, burn": {func(o *ledger.Out) { o.Request(1, 0); o.HalfClose(); o.Burn() }, left, nil, ledger.OutExhausted},
	} {
		o := &ledger.Out{Left: left}
		c.play(o)
		if o.Why() != c.why || o.Lost() != c.lost || o.State() != c.state {
			t.Errorf("%s: got %v, why %v, lost %v; want %v, %v, %v", name, o.State(), o.Why(), o.Lost(), c.state, c.why, c.lost)
		}
	}
}

func TestNames(t *testing.T) {
	if got := ledger.OutState(99).String() + ledger.InState(99).String() + ledger.OutEvent(99).String() + ledger.InEvent(99).String(); got != "nonenonenonenone" {
		t.Errorf("names of what is none: got %q", got)
	}
}

// A receiver that half-closes without credit left gets no more elements, and an element on its way keeps its credit.
func TestHalfCloseWithoutCredit(t *testing.T) {
	left := errors.New("left")
	o := ledger.Out{Left: left}
	if o.HalfClose(); o.State() != ledger.OutExhausted || !errors.Is(o.Why(), left) {
		t.Errorf("after a half-close without credit: got %v and %v, want Exhausted and %v", o.State(), o.Why(), left)
	}
	o = ledger.Out{Left: left}
	if _, v := o.Request(1, 0); v != nil {
		t.Fatal(v)
	}
	size, verdict := o.Take(func() int { return 0 })
	if o.HalfClose(); verdict != ledger.Taken || o.State() != ledger.OutLastCredit {
		t.Errorf("while the last element is written: got %v and %v, want Taken and LastCredit", verdict, o.State())
	}
	if o.Restore(size); !o.Free() {
		t.Error("after the last element was not written: got no credit, want it back")
	}
}
