package gates

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/match"
	"github.com/weir-go/weir/internal/check"
)

// ErrConfig is wrapped by the errors of [FromJSON] and [Rules.Update].
var ErrConfig = errors.New("gates: invalid configuration")

// A Rule assigns calls to a gate.
type Rule struct {
	// Gate must not be nil, and must not be in two rules.
	Gate *admit.Gate
	// Match chooses calls; nil chooses all of them. See interceptors.Methods for methods by
	// name. It is called before a permit is taken, from many goroutines at once. A tap gives
	// it less of the call; see "Taps" in the documentation of package interceptors.
	Match selector.Matcher
	// Streams makes this a gate for streams. Unary calls skip it, and streams skip the other
	// gates.
	Streams bool
}

// Rules are the gates of a server in their order. A unary call goes to the first gate that
// matches and is not for streams. A stream goes to the first gate that matches and is for
// streams. Unary interceptor, stream interceptor and tap use the same list. A call without a
// match goes to the Gate of interceptors.ServerConfig, and a stream to its Streams. If that is
// nil, the call is not limited.
type Rules []Rule

// FromJSON makes the gates of a document; see [admit.SectionsFromJSON]. A gate without
// "methods" is for all calls that no earlier gate matches. The options apply to each gate,
// before the values of the document. The error names every mistake by line and key.
func FromJSON(document []byte, opts ...admit.Option) (Rules, error) {
	sections, err := admit.SectionsFromJSON(document)
	var bad check.Errors
	bad.That(err == nil, "%s", withoutKind(err))
	var rules Rules
	for _, s := range sections {
		for i, name := range s.Methods {
			if name != "" { // SectionsFromJSON reports an empty one
				bad.From("document: "+s.Where(fmt.Sprintf("methods[%d]", i)), match.CheckName(name), nil)
			}
		}
		bad.That(s.Methods == nil || len(s.Methods) > 0,
			"document: %s: got no method, want one, or no such key for every call", s.Where("methods"))
		if s.Option == nil {
			continue
		}
		g, err := admit.New(append(slices.Clip(opts), admit.WithName(s.Name), s.Option)...)
		if err != nil {
			bad.From("document: "+s.Where("name"), err, admit.ErrConfig)
			continue
		}
		rule := Rule{Gate: g, Streams: s.Streams}
		if s.Methods != nil {
			rule.Match = match.New(s.Methods...)
		}
		rules = append(rules, rule)
	}
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return rules, nil
}

// Update changes the gates that a document names, while calls run. With an error, no gate
// changes. Values and gates that the document does not name stay as they are. Update cannot
// add a gate or change the methods of one. A new name, or other methods than at the start,
// is an error.
func (r Rules) Update(document []byte) error {
	sections, err := admit.SectionsFromJSON(document)
	if err != nil {
		return check.One(ErrConfig, "%s", withoutKind(err))
	}
	var bad check.Errors
	for _, s := range sections {
		i := slices.IndexFunc(r, func(r Rule) bool { return r.Gate != nil && r.Gate.Name() == s.Name })
		if i < 0 {
			continue // UpdateFromJSON reports an unknown name
		}
		now, _ := r[i].Match.(*match.Methods)
		bad.That(s.Methods == nil || now.Has(s.Methods),
			"document: %s: got methods %q, want those of the start: others take a restart", s.Where("methods"), s.Methods)
		bad.That(!s.Streams || r[i].Streams, "document: %s: got true, want false as at the start", s.Where("streams"))
	}
	if err := bad.Err(ErrConfig); err != nil {
		return err
	}
	if err := admit.UpdateFromJSON(document, r.All()...); err != nil {
		return check.One(ErrConfig, "%s", withoutKind(err))
	}
	return nil
}

// withoutKind returns the mistakes in an error of package admit, without its sentinel.
func withoutKind(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimPrefix(err.Error(), admit.ErrConfig.Error()+": ")
}

// All returns the gates in their order, for metrics and for Drain.
func (r Rules) All() []*admit.Gate {
	all := make([]*admit.Gate, 0, len(r))
	for _, rule := range r {
		if rule.Gate != nil {
			all = append(all, rule.Gate)
		}
	}
	return all
}
