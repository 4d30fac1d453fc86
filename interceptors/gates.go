package interceptors

import (
	"context"
	"fmt"
	"slices"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/tap"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/check"
)

// A GateRule assigns calls to a gate.
type GateRule struct {
	// Gate must not be nil, and must not be in two rules.
	Gate *admit.Gate
	// Match chooses calls; nil chooses all of them. See [Methods] for methods by name. It
	// is called before a permit is taken, from many goroutines at once. [Tap] describes the
	// arguments that it gets in a tap.
	Match Matcher
	// Streams makes this a gate for streams. Unary calls skip it, and streams skip the other
	// gates.
	Streams bool
}

// Gates are the gates of a server that has different bottlenecks for different methods. A
// unary call goes to the first gate that matches and is not for streams. A stream goes to
// the first gate that matches and is for streams. Unary interceptor, stream interceptor and
// tap use the same list. A call without a match goes to the Gate of [ServerConfig], and a
// stream to its Streams. If that is nil, the call is not limited.
type Gates []GateRule

// GatesFromJSON makes the gates of a document; see [admit.SectionsFromJSON]. A gate without
// "methods" is for all calls that no earlier gate matches. The options apply to each gate,
// before the values of the document. The error names every mistake by line and key.
func GatesFromJSON(document []byte, opts ...admit.Option) (Gates, error) {
	sections, err := admit.SectionsFromJSON(document)
	var bad check.Errors
	bad.That(err == nil, "gates: %s", withoutKind(err))
	var gates Gates
	for _, s := range sections {
		for i, name := range s.Methods {
			if err := checkMethod(name); err != nil && name != "" {
				bad.That(false, "gates: document: %s: %w", s.Where(fmt.Sprintf("methods[%d]", i)), err)
			}
		}
		bad.That(s.Methods == nil || len(s.Methods) > 0,
			"gates: document: %s: got no method, want one, or no such key for every call", s.Where("methods"))
		if s.Option == nil {
			continue
		}
		g, err := admit.New(append(slices.Clip(opts), admit.WithName(s.Name), s.Option)...)
		if err != nil {
			bad.That(false, "gates: document: %s: %s", s.Where("name"), withoutKind(err))
			continue
		}
		rule := GateRule{Gate: g, Streams: s.Streams}
		if s.Methods != nil {
			rule.Match = Methods(s.Methods...)
		}
		gates = append(gates, rule)
	}
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	return gates, nil
}

// Update changes the gates that a document names, while calls run. With an error, no gate
// changes. Values and gates that the document does not name stay as they are. Update cannot
// add a gate or change the methods of one. A new name, or other methods than at the start,
// is an error.
func (g Gates) Update(document []byte) error {
	sections, err := admit.SectionsFromJSON(document)
	if err != nil {
		return fmt.Errorf("%w: gates: %s", ErrConfig, withoutKind(err))
	}
	var bad check.Errors
	for _, s := range sections {
		i := slices.IndexFunc(g, func(r GateRule) bool { return made(r.Gate) && r.Gate.Name() == s.Name })
		if i < 0 {
			continue // UpdateFromJSON reports an unknown name
		}
		now, _ := g[i].Match.(*methods)
		bad.That(s.Methods == nil || now != nil && slices.Equal(now.names, s.Methods),
			"gates: document: %s: got methods %q, want those of the start: others take a restart", s.Where("methods"), s.Methods)
		bad.That(!s.Streams || g[i].Streams, "gates: document: %s: got true, want false as at the start", s.Where("streams"))
	}
	if err := bad.Err(ErrConfig); err != nil {
		return err
	}
	if err := admit.UpdateFromJSON(document, g.All()...); err != nil {
		return fmt.Errorf("%w: gates: %s", ErrConfig, withoutKind(err))
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
func (g Gates) All() []*admit.Gate {
	all := make([]*admit.Gate, 0, len(g))
	for _, r := range g {
		if r.Gate != nil {
			all = append(all, r.Gate)
		}
	}
	return all
}

// validate checks the gates. lasting tells that a stream holds its permit until its end.
func (g Gates) validate(bad *check.Errors, c *ServerConfig, lasting bool) {
	for i, r := range g {
		what := fmt.Sprintf("server: Gates[%d]", i)
		bad.That(r.Gate != nil, "%s: Gate: got nil, want a gate", what)
		checkGate(bad, what+": Gate", r.Gate, r.Streams && lasting)
		for _, err := range checkMatcher(r.Match) {
			bad.That(false, "%s: Match: %w", what, err)
		}
		if !made(r.Gate) {
			continue
		}
		bad.That(r.Gate != c.Gate && r.Gate != c.Streams, "%s: Gate: got the gate of Gate or Streams, want one of its own", what)
		if c.Gate != nil && r.Gate != c.Gate {
			bad.That(r.Gate.Name() != c.Gate.Name(), "%s: Gate: got the name %q of Gate, want one of its own", what, r.Gate.Name())
		}
		if c.Streams != nil && r.Gate != c.Streams {
			bad.That(r.Gate.Name() != c.Streams.Name(), "%s: Gate: got the name %q of Streams, want one of its own", what, r.Gate.Name())
		}
		for j, before := range g[:i] {
			r.after(bad, what, fmt.Sprintf("Gates[%d]", j), before)
		}
	}
}

// after checks a rule against an earlier one.
func (r GateRule) after(bad *check.Errors, what, where string, before GateRule) {
	if made(before.Gate) {
		bad.That(r.Gate != before.Gate, "%s: Gate: got the gate of %s, want one of its own, or one rule for both", what, where)
		bad.That(r.Gate == before.Gate || r.Gate.Name() != before.Gate.Name(),
			"%s: Gate: got the name %q of %s, want one of its own", what, r.Gate.Name(), where)
	}
	if r.Streams != before.Streams {
		return
	}
	bad.That(before.Match != nil, "%s: got a rule that no call reaches, want it before %s, which is for every call", what, where)
	mine, ok := r.Match.(*methods)
	theirs, both := before.Match.(*methods)
	if !ok || !both || mine == nil || theirs == nil {
		return
	}
	for i, m := range mine.parts {
		bad.That(!theirs.covers(m), "%s: Match: got %q, which is for %s already, want it in one of them", what, mine.names[i], where)
	}
}

// covers reports whether m matches every call that name matches.
func (m *methods) covers(name methodParts) bool {
	return slices.ContainsFunc(m.parts, func(p methodParts) bool {
		return p.service == name.service && (p.method == "" || p.method == name.method)
	})
}

// A router sends each call to its gate.
type router struct {
	config  *config
	exempts bool
	routes  []route
	rest    *server // nil if calls without a route are not limited
	turn    tap.ServerInHandle
}

type route struct {
	match Matcher // nil matches every call
	to    *server
	turn  tap.ServerInHandle
}

// router returns the router for calls of a kind, nil if one gate takes all of them.
func (c *ServerConfig) router(k kind, rest *admit.Gate, cfg config) *router {
	r := &router{config: &cfg, exempts: !cfg.noExemptions}
	for _, rule := range c.Gates {
		if rule.Streams == (k == streamServer) {
			r.routes = append(r.routes, route{rule.Match, cfg.server(rule.Gate, k), cfg.tap(rule.Gate)})
		}
	}
	switch {
	case len(r.routes) == 0:
		return nil
	case rest != nil:
		r.rest, r.turn = cfg.server(rest, k), cfg.tap(rest)
	}
	return r
}

// server returns the interceptor of a gate.
func (c *config) server(g *admit.Gate, k kind) *server {
	return &server{config: *c, member: join(g, k)}
}

// find returns where a call goes. Both results are nil if the call is not limited.
func (r *router) find(ctx context.Context, method string, info *grpc.StreamServerInfo, req any) (*server, tap.ServerInHandle) {
	if r.exempts && exempt(method) {
		return nil, nil
	}
	meta := middleware.NewServerCallMeta(method, info, req)
	for i := range r.routes {
		if rt := &r.routes[i]; rt.match == nil || rt.match.Match(ctx, meta) {
			return rt.to, rt.turn
		}
	}
	return r.rest, r.turn
}

func (r *router) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s, _ := r.find(ctx, info.FullMethod, nil, req)
	if s == nil {
		return handler(ctx, req)
	}
	return s.unary(ctx, req, info, handler)
}

func (r *router) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s, _ := r.find(ss.Context(), info.FullMethod, info, nil)
	if s == nil {
		return r.config.withoutGate(srv, ss, info, handler)
	}
	return s.stream(srv, ss, info, handler)
}

// tap is the tap handle for all gates. While no gate is full, it does not look at the call.
func (r *router) tap(ctx context.Context, info *tap.Info) (context.Context, error) {
	full := r.rest != nil && gateFuncs.Full(r.rest.gate)
	for i := 0; i < len(r.routes) && !full; i++ {
		full = gateFuncs.Full(r.routes[i].to.gate)
	}
	if !full {
		return ctx, nil
	}
	if turn := r.findForTap(ctx, info.FullMethodName); turn != nil {
		return turn(ctx, info)
	}
	return ctx, nil
}

// findForTap returns nil if a matcher panics, because a panic in a tap ends the process.
func (r *router) findForTap(ctx context.Context, method string) (turn tap.ServerInHandle) {
	defer func() {
		if recover() != nil {
			turn = nil
		}
	}()
	_, turn = r.find(ctx, method, nil, nil)
	return turn
}
