package interceptors

import (
	"context"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/admit"
)

// A ServerOption configures [UnaryServer], [StreamServer] and [Tap].
type ServerOption interface{ applyServer(*config) }

// A ClientOption configures [UnaryClient] and [StreamClient].
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

// WithMatcher makes only those calls subject to the gate that match; others pass
// as if there were no interceptor. It comes on top of the exemptions of a
// server. Nil, the default, matches every call. The matcher is called before a
// permit is taken, from many goroutines at once; see [Tap] for what it is given
// there.
func WithMatcher(m selector.Matcher) Option {
	return option(func(c *config) { c.matcher = m })
}

// WithClassifier sets what says how important a call is. Nil, the default, makes
// every call admit.Default. Like a matcher it is called before a permit is
// taken, from many goroutines at once. Do not trust what an unauthenticated
// caller says about itself.
func WithClassifier(f func(ctx context.Context, c middleware.CallMeta) admit.Class) Option {
	return option(func(c *config) { c.classifier = f })
}

// WithOutcome sets what the end of a unary call means to the limit. It is called
// with the handler's or invoker's error, nil included, but not with an error that
// a gate in this process made, which is never an outcome; when it panics the call
// is ignored. Nil restores the default, see the package's description.
func WithOutcome(f func(error) admit.Outcome) Option {
	return option(func(c *config) { c.outcomeOf = f })
}

// WithCode sets the status code of refusals for a reason. There is no refusing
// with codes.OK, which would tell the caller that its call was done: OK stands
// for codes.Unknown here, as does a number that is no code, just as grpc treats
// an error that claims to be OK.
func WithCode(why admit.Reason, code codes.Code) Option {
	return option(func(c *config) {
		if int(why) < len(c.codes) {
			c.codes[why] = sound(code)
		}
	})
}

// WithoutExemptions makes the health, reflection and channelz services subject
// to the gate. Without it they always pass: an overloaded server that fails its
// health checks is restarted by its supervisor, and its load goes to the next.
func WithoutExemptions() ServerOption {
	return serverOption(func(c *config) { c.noExemptions = true })
}

// config is what the options say.
type config struct {
	matcher      selector.Matcher
	classifier   func(context.Context, middleware.CallMeta) admit.Class
	outcomeOf    func(error) admit.Outcome
	codes        codeTable
	noExemptions bool
}

func serverConfig(opts []ServerOption) config {
	c := config{codes: serverCodes}
	for _, o := range opts {
		o.applyServer(&c)
	}
	return c
}

func clientConfig(opts []ClientOption) config {
	c := config{codes: clientCodes}
	for _, o := range opts {
		o.applyClient(&c)
	}
	return c
}
