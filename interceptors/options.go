package interceptors

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

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

// WithClass gives calls that match a class. Of several uses the first that
// matches counts, and before what [WithClassifier] says. A nil matcher matches
// every call. For methods and services by name see [Methods].
func WithClass(class admit.Class, m selector.Matcher) Option {
	if m == nil {
		m = selector.MatchFunc(func(context.Context, middleware.CallMeta) bool { return true })
	}
	return option(func(c *config) { c.classes = append(slices.Clip(c.classes), classRule{m, class}) })
}

// Methods matches calls by what they are named, as gRPC writes it: "/shop.Orders/Buy"
// is a method, "/shop.Orders/" all methods of a service. There are no wildcards. A name
// of another form is an error of [Server] and [Client], and with an interceptor that was
// made without them every call fails with INTERNAL.
func Methods(names ...string) selector.Matcher {
	m := &methods{names: names, parts: make([]methodParts, len(names))}
	if len(names) == 0 {
		m.wrong = append(m.wrong, errors.New("Methods: got no name, want one or more"))
	}
	for i, name := range names {
		if err := checkMethod(name); err != nil {
			m.wrong = append(m.wrong, fmt.Errorf("Methods: %w", err))
		}
		m.parts[i].service, m.parts[i].method, _ = strings.Cut(strings.TrimPrefix(name, "/"), "/")
	}
	return m
}

type (
	methods struct {
		names []string
		parts []methodParts
		wrong []error
	}
	methodParts struct{ service, method string }
)

// Match implements selector.Matcher.
func (m *methods) Match(_ context.Context, c middleware.CallMeta) bool {
	for i := range m.parts {
		if p := &m.parts[i]; p.service == c.Service && (p.method == c.Method || p.method == "") {
			return true
		}
	}
	return false
}

// WithTenant sets what says whose a call is, so that tenants of a class share it
// fairly. Like a classifier it is called before a permit is taken, from many
// goroutines at once. Take the tenant from what authentication has put into the
// context, never from metadata that the caller chose. Nil, the default, and the
// empty name are nobody in particular.
func WithTenant(f func(ctx context.Context, c middleware.CallMeta) string) Option {
	return option(func(c *config) { c.tenant = f })
}

// WithCost sets what says how many permits a call takes; see [admit.Call]. Like a
// classifier it is called before a permit is taken, from many goroutines at once;
// the request is in the meta of unary calls. Nil, the default, is one permit each.
func WithCost(f func(ctx context.Context, c middleware.CallMeta) int) Option {
	return option(func(c *config) { c.cost = f })
}

// WithOutcome sets what the end of a unary call means to the limit. It is called
// with the handler's or invoker's error, nil included, but not with an error that
// a gate in this process made, which is never an outcome; when it panics the call
// is ignored. With [WithStreamSetup] it is also asked about the set-up of a stream, with nil when
// that is over. Nil restores the default, see the package's description.
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
	classes      []classRule
	classifier   func(context.Context, middleware.CallMeta) admit.Class
	tenant       func(context.Context, middleware.CallMeta) string
	cost         func(context.Context, middleware.CallMeta) int
	propagates   bool
	trust        func(context.Context) (admit.Class, bool)
	shedRetries  bool
	streams      streamRules
	outcomeOf    func(error) admit.Outcome
	codes        codeTable
	built        *sync.Map // the errors of refusals: of *stopped, by *admit.Refusal
	usual        *usualErrors
	overQuota    *quotaErrors
	noExemptions bool
	leaves       bool // calls leave here: their context may say what they are
	wrong        []error
}

// A classRule gives calls that match a class.
type classRule struct {
	matcher selector.Matcher
	class   admit.Class
}

func serverConfig(opts []ServerOption) config {
	c := config{codes: serverCodes, built: new(sync.Map), usual: new(usualErrors), overQuota: new(quotaErrors)}
	for i, o := range opts {
		if o == nil {
			c.wrong = append(c.wrong, fmt.Errorf("option %d: got nil, want an option", i))
			continue
		}
		o.applyServer(&c)
	}
	return c
}

func clientConfig(opts []ClientOption) config {
	c := config{codes: clientCodes, built: new(sync.Map), usual: new(usualErrors), overQuota: new(quotaErrors), leaves: true}
	for i, o := range opts {
		if o == nil {
			c.wrong = append(c.wrong, fmt.Errorf("option %d: got nil, want an option", i))
			continue
		}
		o.applyClient(&c)
	}
	return c
}
