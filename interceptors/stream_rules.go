package interceptors

import (
	"context"
	"slices"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/interceptors/internal/match"
	"github.com/weir-go/weir/internal/check"
)

// A streamRule sets a value for the streams that match. A nil matcher matches every stream.
type streamRule[T any] struct {
	matcher Matcher
	value   T
}

// streamRules holds the options for streams. The first rule of a kind that matches wins.
type streamRules struct {
	stalls []streamRule[time.Duration]
	setups []streamRule[StreamSetup]
}

// ruleFor returns the value of the first rule that matches.
func ruleFor[T any](ctx context.Context, rules []streamRule[T], info *grpc.StreamServerInfo) (value T, ok bool) {
	for _, r := range rules {
		if r.matcher == nil || r.matcher.Match(ctx, middleware.NewServerCallMeta(info.FullMethod, info, nil)) {
			return r.value, true
		}
	}
	return value, false
}

// check adds the mistakes of the rules.
func (r *streamRules) check(bad *check.Errors) {
	for _, rule := range r.stalls {
		bad.From("WithSendStall", match.Check(rule.matcher), nil)
		d := rule.value
		bad.That(d <= 0 || d >= shortestStall, "WithSendStall: got %v, want 0 (%v), %v or more, or less than 0 (no bound)",
			d, defaultSendStall, shortestStall)
	}
	for _, rule := range r.setups {
		bad.From("WithStreamSetup", match.Check(rule.matcher), nil)
		bad.That(rule.value.After >= 0, "WithStreamSetup: After: got %v, want 0 (no such end) or more", rule.value.After)
	}
}

// A plan is the result of the rules for one stream.
type plan struct {
	stall  time.Duration // the bound of a Send; none if it is 0 or less
	setup  StreamSetup
	setsUp bool // a rule gives the stream a set-up
}

func (r *streamRules) plan(ctx context.Context, info *grpc.StreamServerInfo) (p plan) {
	p.stall, _ = ruleFor(ctx, r.stalls, info)
	if p.stall == 0 {
		p.stall = defaultSendStall
	}
	p.setup, p.setsUp = ruleFor(ctx, r.setups, info)
	return p
}

// addStall adds a rule after all others.
func (r *streamRules) addStall(d time.Duration, m Matcher) {
	r.stalls = append(slices.Clip(r.stalls), streamRule[time.Duration]{m, d})
}
