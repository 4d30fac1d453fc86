package retry

import (
	"context"
	"slices"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-go/weir/interceptors/internal/places"
)

// A Meter counts the retries of gRPC by target and method, and estimates its retry budget. Give
// one to interceptors.ClientConfig.Retries, or its DialOptions to a connection. Several
// connections may share one. It is safe for concurrent use. Use [NewMeter]. A nil or zero Meter
// counts nothing.
//
// gRPC reports each step of a call to a stats handler, which allocates. Leave the Meter out where
// that matters.
type Meter struct {
	name    string
	table   *places.Table[*tally]
	budgets budgets
}

// NewMeter returns a meter. The page of package debug and the metrics have its name.
func NewMeter(name string) *Meter {
	return &Meter{name: name, table: places.New(func(p places.Place) *tally { return &tally{Place: p} })}
}

// Name returns the name of the meter. It is empty for nil and for the zero Meter.
func (m *Meter) Name() string {
	if m == nil {
		return ""
	}
	return m.name
}

func (m *Meter) isZero() bool { return m == nil || m.table == nil }

// MeterStats counts the calls of a method since the meter was made.
type MeterStats struct {
	// Target is the target of the connection, and Method the full name of the method. Both are
	// "*" for the methods beyond the first 1024.
	Target, Method string
	// Calls is the number of calls that gRPC began to send. Retries is the number of attempts
	// after the first ones. Transparent counts attempts that replaced one which no server had
	// seen. gRPC limits those by itself, and Retries leaves them out.
	Calls, Retries, Transparent uint64
	// Withheld counts unary calls that gRPC did not send again after an error that the policy names,
	// with attempts left, because the budget was used up. A load balancer that drops
	// calls, as with xDS, and grpc.WithDisableRetry look the same.
	Withheld uint64
}

// Stats returns the counts of the methods that were called, in the order of their first use.
func (m *Meter) Stats() (all []MeterStats) {
	if m.isZero() {
		return nil
	}
	for _, t := range m.table.All() {
		s := MeterStats{t.Target, t.Method, t.calls.Load(), t.retries.Load(), t.transparent.Load(), t.withheld.Load()}
		if s.Calls > 0 {
			all = append(all, s)
		}
	}
	return all
}

// A tally counts for one place.
type tally struct {
	places.Place
	calls, retries, transparent, withheld atomic.Uint64
}

// DialOptions returns the options of a connection that is counted. Later interceptors must not
// retry, or one call would look like several attempts. c is the Config of gRPC's retries. If it
// is nil, the budget is not estimated. DialOptions does not change c and does not set the retry
// policy, as [DialOption] does.
func (m *Meter) DialOptions(c *Config) []grpc.DialOption {
	if m.isZero() {
		return nil
	}
	w := watcher{meter: m}
	if c != nil {
		policy := *c
		policy.defaults()
		policy.Codes = slices.Clone(policy.Codes)
		policy.Methods = slices.Clone(policy.Methods)
		policy.Services = slices.Clone(policy.Services)
		w.policy = &policy
	}
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(w.unary), grpc.WithChainStreamInterceptor(w.stream), grpc.WithStatsHandler(attempts{m}),
	}
}

// A watcher counts the calls of connections with the same policy.
type watcher struct {
	meter  *Meter
	policy *Config // nil if not known
}

func (w *watcher) unary(
	ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
	invoker grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	call := w.begin(cc, method, opts)
	err := invoker(context.WithValue(ctx, w.meter, call), method, req, reply, cc, opts...)
	call.finish(err, ctx.Err() == nil)
	return err
}

// stream leaves out the calls that were withheld, because gRPC does not show whether a stream
// could be retried.
func (w *watcher) stream(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	call := w.begin(cc, method, opts)
	finished := grpc.OnFinish(func(err error) { call.finish(err, false) })
	return streamer(context.WithValue(ctx, w.meter, call), desc, cc, method, append(slices.Clip(opts), finished)...)
}

// begin returns the record of a call.
func (w *watcher) begin(cc *grpc.ClientConn, method string, opts []grpc.CallOption) *metered {
	return &metered{tally: w.meter.table.At(cc, method), watcher: w, cc: cc, method: method, kept: keptBytes(opts)}
}

// covers reports whether a method has the retry policy.
func (c *Config) covers(method string) bool {
	service, _ := split(method)
	return len(c.Methods)+len(c.Services) == 0 || slices.Contains(c.Methods, method) || slices.Contains(c.Services, service)
}

// allows reports whether the codes are those of the policy.
func (c *Config) allows(retried map[codes.Code]bool) bool {
	return len(retried) == len(c.Codes) && !slices.ContainsFunc(c.Codes, func(code codes.Code) bool { return !retried[code] })
}
