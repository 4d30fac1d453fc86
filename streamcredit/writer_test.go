package streamcredit_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/weir-go/weir/streamcredit"
	"github.com/weir-go/weir/streamcredit/internal/ledger"
)

// What may be written follows from the writer's state and from that of the outgoing direction, as
// the table in DESIGN.md says.
func TestWhatMayBeWritten(t *testing.T) {
	const element, terminal, halfClose, burn = ledger.OutElement, ledger.OutTerminal, ledger.OutHalfClose, ledger.OutBurn
	for name, c := range map[string]struct {
		events        []ledger.OutEvent
		open, unaware string
	}{
		"receives only": {nil, "control half-close", ""},
		"Open":          {[]ledger.OutEvent{element}, "control element terminal", "element"},
		"LastCredit":    {[]ledger.OutEvent{element, halfClose}, "control element terminal", "element"},
		"Exhausted":     {[]ledger.OutEvent{element, element, halfClose}, "control terminal", ""},
		"burned":        {[]ledger.OutEvent{element, halfClose, burn}, "control terminal", ""},
		"Closed":        {[]ledger.OutEvent{terminal}, "control half-close", ""},
		"Unheard":       {[]ledger.OutEvent{terminal, halfClose}, "control half-close", ""},
		"Canceled":      {[]ledger.OutEvent{element, ledger.OutCancel}, "control half-close", ""},
		"Returned":      {[]ledger.OutEvent{element, ledger.OutReturn}, "control half-close", ""},
		"Failed":        {[]ledger.OutEvent{element, ledger.OutFail}, "control half-close", ""},
	} {
		want := map[string]string{"Opening": "Open", "Open": c.open, "Unaware": c.unaware, "HalfClosed": ""}
		got := streamcredit.WriterAllows(c.events...)
		for _, state := range slices.Sorted(maps.Keys(want)) {
			if g := strings.Join(got[state], " "); g != want[state] {
				t.Errorf("%s, writer %s: may write %q, want %q", name, state, g, want[state])
			}
		}
	}
}
