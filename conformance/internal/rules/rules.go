// Package rules is the conformance suite of the credit protocol. Each rule in the last section of the protocol
// is a [Rule]. It exchanges raw messages, valid and invalid ones, with an end under test, a [Target], and
// reports got and want.
//
// The end may be a server or a client, with embedded Control or Frames. A rule does not depend on that. It
// works with a [Peer], which is the same for all four kinds.
package rules

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A Rule is one rule of the protocol's conformance section.
type Rule struct {
	// Number is the number of the rule in the protocol. Two rules with one test have the lower number.
	Number int
	// Name is a short name for a line of output.
	Name string
	// Proves describes the property of an end that passes.
	Proves string
	// Only limits the rule to some kinds of ends. The zero value means all kinds.
	Only Ends
	// Deadline is the longest time for the rule. Zero means 20 s.
	Deadline time.Duration
	// Run fails t if the end does not pass.
	Run func(t *T)
}

// Ends is a set of kinds of ends.
type Ends uint8

// The kinds of ends. ServerEnds and ClientEnds exclude each other, as do Embedded and Framed.
const (
	ServerEnds Ends = 1 << iota
	ClientEnds
	Embedded
	Framed
)

// All returns the rules in the order of their numbers. The caller may change the slice.
func All() []Rule {
	return slices.SortedStableFunc(slices.Values(slices.Concat(
		credit, requests, badReceivers, badSenders, ends, drains, liveness, faults, accounts,
	)), func(a, b Rule) int { return a.Number - b.Number })
}

// Title returns the rule's name in the form of a test's name.
func (r Rule) Title() string {
	return fmt.Sprintf("%02d_%s", r.Number, strings.ReplaceAll(r.Name, " ", "_"))
}

// NotApplicable returns why the rule does not apply to ends of that kind, or "" if it applies.
func (r Rule) NotApplicable(kind Ends) string {
	for _, c := range []struct {
		only Ends
		why  string
	}{
		{ServerEnds, "for servers only"},
		{ClientEnds, "for clients only"},
		{Embedded, "for embedded control only"},
		{Framed, "for frames only"},
	} {
		if r.Only&c.only != 0 && kind&c.only == 0 {
			return c.why
		}
	}
	return ""
}

// Config configures [Check]. The zero value is for an end that is reached over a network.
type Config struct {
	// Settle is the time without a message after which a rule decides that none will come. Zero means 100 ms.
	Settle time.Duration
	// Exact means that time passes only while all goroutines wait, as in a testing/synctest bubble. Rules then
	// require exact durations.
	Exact bool
	// Part divides the number of repetitions in a rule. Zero means 1.
	Part int
}

// A Result is the result of a rule. The zero value means that the end passed.
type Result struct {
	// Skipped is the reason why the rule was not checked, or "".
	Skipped string
	// Err describes the mistake of the end, nil if there was none.
	Err error
}

// Check checks one rule against a target.
func Check(ctx context.Context, r Rule, target Target, c Config) Result {
	if why := r.NotApplicable(target.Kind()); why != "" {
		return Result{Skipped: why}
	}
	if c.Settle == 0 {
		c.Settle = 100 * time.Millisecond
	}
	if r.Deadline == 0 {
		r.Deadline = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, r.Deadline)
	defer cancel()
	t := &T{Config: c, ctx: ctx, target: target}
	done := make(chan struct{})
	go func() { // Fatalf ends this goroutine
		defer close(done)
		defer t.cleanUp()
		r.Run(t)
	}()
	<-done
	return t.result
}

// A T is a rule that is being checked. It belongs to one goroutine.
type T struct {
	Config

	ctx    context.Context
	target Target
	peers  []*Peer
	result Result
}

// Fatalf ends the rule with an error, which should give got and want.
func (t *T) Fatalf(format string, args ...any) {
	if t.result == (Result{}) {
		t.result.Err = fmt.Errorf(format, args...)
	}
	runtime.Goexit()
}

// Skipf ends the rule as one that cannot be checked.
func (t *T) Skipf(format string, args ...any) {
	t.result.Skipped = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// times returns the number of repetitions for n, which is less if Part is set.
func (t *T) times(n int) int { return max(1, n/max(1, t.Part)) }

// took checks the time from start to an event that has just happened.
func (t *T) took(event string, start time.Time, want time.Duration) {
	got := time.Since(start)
	if got < want || t.Exact && got > want {
		t.Fatalf("got %s after %v, want it after %v", event, got, want)
	}
}

// is reports whether the end under test is of that kind.
func (t *T) is(kind Ends) bool { return t.target.Kind()&kind == kind }

// cleanUp ends all streams of the rule.
func (t *T) cleanUp() {
	for _, p := range t.peers {
		p.close()
	}
}

// request returns a Request for n elements. The functions below return the other kinds of Control.
func request(n int64) *creditpb.Control {
	return demand(&creditpb.Request{N: n})
}

func demand(r *creditpb.Request) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Request{Request: r}}
}

func complete(total uint64) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Complete{Complete: &creditpb.Complete{Total: total}}}
}

func failure(total uint64) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Error{
		Error: &creditpb.Error{Code: failureCode, Message: failureMessage, Total: total},
	}}
}

func cancel() *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Cancel{Cancel: &creditpb.Cancel{Reason: "the suite has enough"}}}
}

func heartbeat(echo bool) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: &creditpb.Heartbeat{Echo: echo}}}
}

func drained(sent uint64, burned int64) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Drained{Drained: &creditpb.Drained{Sent: sent, Burned: burned}}}
}

func opening(o *creditpb.Open) *creditpb.Control {
	return &creditpb.Control{Kind: &creditpb.Control_Open{Open: o}}
}

// The Error of failure, which no end sends by itself.
const (
	failureCode    = 11 // OUT_OF_RANGE
	failureMessage = "as the suite says"
	unbounded      = 1<<63 - 1
)

// allFeatures lists the features that both ends use. FEATURE_UNFINISHED is for clients only.
var allFeatures = []creditpb.Feature{
	creditpb.Feature_FEATURE_CONSUMED, creditpb.Feature_FEATURE_DRAIN,
	creditpb.Feature_FEATURE_HEARTBEAT, creditpb.Feature_FEATURE_BATCH,
}
