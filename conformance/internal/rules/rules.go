// Package rules is the conformance suite of the credit protocol: each rule of its last
// section is a Rule, which speaks raw messages with an end under test, a [Target], well and
// badly, and says what it got and what it wanted.
//
// The end may be a server or a client, and speak embedded Control or Frames. A rule does
// not know: what it says to a [Peer] goes the same way for all four.
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
	// Number is its number there; two numbers that are one test have the lower one.
	Number int
	// Name is a few words for a line of output.
	Name string
	// Proves says what holds for an end that passes.
	Proves string
	// Only says for which ends the rule means something. The zero value: all.
	Only Ends
	// Deadline is how long it may take; zero is 20 s.
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

// All returns the rules in the order of their numbers. What they share is theirs alone.
func All() []Rule {
	return slices.SortedStableFunc(slices.Values(slices.Concat(
		credit, requests, badReceivers, badSenders, ends, drains, liveness, faults, accounts,
	)), func(a, b Rule) int { return a.Number - b.Number })
}

// Title returns the rule's name as that of a test.
func (r Rule) Title() string {
	return fmt.Sprintf("%02d_%s", r.Number, strings.ReplaceAll(r.Name, " ", "_"))
}

// NotApplicable returns why the rule means nothing for ends of that kind, or nothing if it does.
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

// Config is how to check rules. The zero value is for a machine that is a network away.
type Config struct {
	// Settle is how long to wait before saying that nothing came; zero is 100 ms.
	Settle time.Duration
	// Exact says that time does not pass while anybody works, as in a bubble of
	// testing/synctest: what has to take a time must take exactly that.
	Exact bool
	// Part divides how often the rules do what they do many times; zero is 1.
	Part int
}

// A Result is what came of a rule: nothing is good.
type Result struct {
	// Skipped is why the rule could not be checked.
	Skipped string
	// Err is what the end did wrong.
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
	go func() { // so that Fatalf ends it
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

// Fatalf ends the rule. It should say got and want.
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

// times returns n, or less if the configuration says so.
func (t *T) times(n int) int { return max(1, n/max(1, t.Part)) }

// took checks how long something took that began at start.
func (t *T) took(what string, start time.Time, want time.Duration) {
	got := time.Since(start)
	if got < want || t.Exact && got > want {
		t.Fatalf("%s: got it after %v, want it after %v", what, got, want)
	}
}

// is reports whether the end is one of that kind.
func (t *T) is(kind Ends) bool { return t.target.Kind()&kind == kind }

// cleanUp leaves no stream behind.
func (t *T) cleanUp() {
	for _, p := range t.peers {
		p.close()
	}
}

// say is a Control of each kind.
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

// failure is an error that no end makes by itself.
const (
	failureCode    = 11 // OUT_OF_RANGE
	failureMessage = "as the suite says"
	unbounded      = 1<<63 - 1
)

// allFeatures is all that an Open can list.
var allFeatures = []creditpb.Feature{
	creditpb.Feature_FEATURE_CONSUMED, creditpb.Feature_FEATURE_DRAIN,
	creditpb.Feature_FEATURE_HEARTBEAT, creditpb.Feature_FEATURE_BATCH,
}
