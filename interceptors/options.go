package interceptors

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors/internal/refusal"
	"github.com/weir-go/weir/internal/check"
)

// A ServerOption configures [Server], [UnaryServer] and [StreamServer].
type ServerOption interface{ applyServer(*config) }

// A ClientOption configures [Client], [UnaryClient] and [StreamClient].
type ClientOption interface{ applyClient(*config) }

// An Option configures interceptors of either side.
type Option interface {
	ServerOption
	ClientOption
}

type option func(*config)

func (o option) applyServer(c *config) { o(c) }
func (o option) applyClient(c *config) { o(c) }

type serverOption func(*config)

func (o serverOption) applyServer(c *config) { o(c) }

// WithMatcher limits the gate to the calls that match. All others pass as if there were no
// interceptor. The exemptions of a server still apply. Nil, the default, matches every
// call. The matcher is called before a permit is taken, from many goroutines at once. A
// tap gives it less of the call; see "Taps" in the package documentation.
func WithMatcher(m Matcher) Option {
	return option(func(c *config) { c.matcher = m })
}

// WithClassifier sets the function that returns the class of a call. Nil, the default, makes
// every call admit.Default. It is called before a permit is taken, from many goroutines at
// once. Do not trust an unauthenticated caller's word about its own class.
func WithClassifier(f func(ctx context.Context, c CallMeta) admit.Class) Option {
	return option(func(c *config) { c.classifier = f })
}

// WithClassFor assigns a class to the calls that match. If it is used several times, the
// first match wins, and any match wins over [WithClassifier]. A nil matcher matches every
// call. See [Methods] for methods and services by name. The class itself is configured with
// admit.WithClassConfig.
func WithClassFor(class admit.Class, m Matcher) Option {
	if m == nil {
		m = MatchFunc(func(context.Context, CallMeta) bool { return true })
	}
	return option(func(c *config) { c.classes = append(slices.Clip(c.classes), classRule{m, class}) })
}

// WithTenant sets the function that returns the tenant of a call. Tenants of a class share
// it fairly. The function is called before a permit is taken, from many goroutines at once.
// Take the tenant from the result of authentication, never from metadata that the caller
// chose. A call with an empty name belongs to no tenant. Nil, the default, gives no call a
// tenant.
func WithTenant(f func(ctx context.Context, c CallMeta) string) Option {
	return option(func(c *config) { c.tenant = f })
}

// WithCost sets the function that returns how many permits a call takes; see [admit.Call].
// It is called before a permit is taken, from many goroutines at once. For a unary call,
// CallMeta has the request. Nil, the default, is one permit for each call.
func WithCost(f func(ctx context.Context, c CallMeta) int) Option {
	return option(func(c *config) { c.cost = f })
}

// WithOutcome sets the function that maps the error of a unary call to an outcome for the
// limit. It gets the error of the handler or the invoker, nil included. It never gets an
// error that a gate in this process made. If it panics, the call is ignored. With
// [WithStreams] or [StreamReady] it also maps the set-up of a stream, which has a nil error
// if the stream got ready. Nil restores the default, which the package documentation describes.
func WithOutcome(f func(error) admit.Outcome) Option {
	return option(func(c *config) { c.outcomeOf = f })
}

// WithCode sets the status code of refusals for a reason. A call cannot be refused with
// codes.OK, which would tell the caller that it succeeded. OK and numbers that are not codes
// become codes.Unknown, as in gRPC.
func WithCode(why admit.Reason, code codes.Code) Option {
	return option(func(c *config) { c.refusals.SetCode(why, code) })
}

// WithoutExemptions makes the health, reflection and channelz services, and the service of
// package debug, subject to the gate. By default they always pass. Otherwise a supervisor could
// restart an overloaded server because its health checks fail, and its load would move to the
// next server. An operator could not ask a full server why it is full.
func WithoutExemptions() ServerOption {
	return serverOption(func(c *config) { c.noExemptions = true })
}

// config holds the values of the options.
type config struct {
	matcher      Matcher
	classes      []classRule
	classifier   func(context.Context, CallMeta) admit.Class
	tenant       func(context.Context, CallMeta) string
	cost         func(context.Context, CallMeta) int
	propagates   bool
	trust        func(context.Context) (admit.Class, bool)
	shedRetries  bool
	streams      streamRules
	stall        time.Duration // of ServerConfig.SendStall
	hold         time.Duration // see WithHoldUntilSent
	outcomeOf    func(error) admit.Outcome
	refusals     *refusal.Maker
	noExemptions bool
	leaves       bool // on a client, where the class may come from the context of the call
	wrong        check.Errors
}

// A classRule assigns a class to the calls that match.
type classRule struct {
	matcher Matcher
	class   admit.Class
}

func serverConfig(opts []ServerOption) config {
	c := config{refusals: refusal.NewServer()}
	for i, o := range opts {
		if c.wrong.That(o != nil, "option %d: got nil, want an option", i); o != nil {
			o.applyServer(&c)
		}
	}
	return c
}

func clientConfig(opts []ClientOption) config {
	c := config{refusals: refusal.NewClient(), leaves: true}
	for i, o := range opts {
		if c.wrong.That(o != nil, "option %d: got nil, want an option", i); o != nil {
			o.applyClient(&c)
		}
	}
	return c
}
