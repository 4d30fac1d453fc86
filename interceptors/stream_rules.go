package interceptors

import (
	"context"
	"fmt"
	"slices"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
)

// A streamRule sets something for streams that match. A nil matcher matches every stream.
type streamRule[T any] struct {
	matcher selector.Matcher
	value   T
}

// streamRules are what options say of streams. Of several rules the first that matches counts.
type streamRules struct {
	stalls []streamRule[time.Duration]
	setups []streamRule[StreamSetup]
}

// ruleFor returns what the first rule that matches says.
func ruleFor[T any](ctx context.Context, rules []streamRule[T], info *grpc.StreamServerInfo) (value T, ok bool) {
	for _, r := range rules {
		if r.matcher == nil || r.matcher.Match(ctx, middleware.NewServerCallMeta(info.FullMethod, info, nil)) {
			return r.value, true
		}
	}
	return value, false
}

// check returns what is wrong with the rules.
func (r *streamRules) check() (errs []error) {
	matcher := func(name string, m selector.Matcher) {
		for _, err := range checkMatcher(m) {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	for _, rule := range r.stalls {
		matcher("WithSendStall", rule.matcher)
		if d := rule.value; d > 0 && d < leastStall {
			errs = append(errs, fmt.Errorf("WithSendStall: got %v, want 0 (%v), %v or more, or less than 0 (no bound)",
				d, defaultSendStall, leastStall))
		}
	}
	for _, rule := range r.setups {
		matcher("WithStreamSetup", rule.matcher)
		if rule.value.After < 0 {
			errs = append(errs, fmt.Errorf("WithStreamSetup: After: got %v, want 0 (no such end) or more", rule.value.After))
		}
	}
	return errs
}

// A plan is what the rules say of one stream.
type plan struct {
	stall  time.Duration // 0 or less: a Send may take any time
	setup  StreamSetup
	setsUp bool // its permit is for the set-up only
}

func (r *streamRules) plan(ctx context.Context, info *grpc.StreamServerInfo) (p plan) {
	p.stall, _ = ruleFor(ctx, r.stalls, info)
	if p.stall == 0 {
		p.stall = defaultSendStall
	}
	p.setup, p.setsUp = ruleFor(ctx, r.setups, info)
	return p
}

// addStall adds the rule for all streams of which no rule before it says anything.
func (r *streamRules) addStall(d time.Duration, m selector.Matcher) {
	r.stalls = append(slices.Clip(r.stalls), streamRule[time.Duration]{m, d})
}
