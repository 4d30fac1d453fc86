package metrics_test

import (
	"context"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/streamcredit"
)

// The streams of a server, and what generated code calls them.
type (
	subscribeServer = grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]
	uploadServer    = grpc.BidiStreamingServer[demopb.UploadRequest, demopb.UploadResponse]
)

// handlers is a StreamService made of functions.
type handlers struct {
	demopb.UnimplementedStreamServiceServer

	subscribe func(subscribeServer) error
	upload    func(uploadServer) error
}

func (h handlers) Subscribe(s subscribeServer) error { return h.subscribe(s) }
func (h handlers) Upload(s uploadServer) error       { return h.upload(s) }

// start serves h and returns a client of it.
func (h handlers) start(t testing.TB) demopb.StreamServiceClient {
	t.Helper()
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, h) })
	return demopb.NewStreamServiceClient(p.Conn)
}

// events returns a client of a server whose handler sends with out.
func events(
	t testing.TB, m *streamcredit.Meter, send func(context.Context, *streamcredit.Sender[*demopb.SubscribeResponse]) error,
	opts ...streamcredit.SendOption,
) demopb.StreamServiceClient {
	t.Helper()
	return handlers{subscribe: func(stream subscribeServer) error {
		out, _, err := streamcredit.ServeSend(stream, append(opts, streamcredit.WithMeter(m))...)
		if err != nil {
			return err
		}
		return send(stream.Context(), out)
	}}.start(t)
}

// event is an element of 102 bytes.
func event() *demopb.SubscribeResponse { return &demopb.SubscribeResponse{Payload: make([]byte, 100)} }

// subscribe opens a subscription.
func subscribe(
	t testing.TB, c demopb.StreamServiceClient, m *streamcredit.Meter, opts ...streamcredit.ReceiveOption,
) *streamcredit.Receiver[*demopb.SubscribeResponse] {
	t.Helper()
	in, err := streamcredit.DialReceive(t.Context(), c.Subscribe, append(opts, streamcredit.WithMeter(m))...)
	if err != nil {
		t.Fatalf("DialReceive: got %v, want no error", err)
	}
	return in
}

// collectStreams returns a registry that shows the meters.
func collectStreams(t testing.TB, meters ...*streamcredit.Meter) *prometheus.Registry {
	t.Helper()
	c, err := metrics.NewCollector(metrics.Sources(meters...)...)
	if err != nil {
		t.Fatal(err)
	}
	r := prometheus.NewPedanticRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	return r
}

// numbers returns the counters and the gauges of a registry by their names and
// labels.
func numbers(t testing.TB, g prometheus.Gatherer) (counters, gauges map[string]float64) {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Errorf("Gather: got %v, want no error", err) // not Fatal: also called from other goroutines
	}
	counters, gauges = map[string]float64{}, map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			if c := m.GetCounter(); c != nil {
				counters[name] = c.GetValue()
			} else {
				gauges[name] = m.GetGauge().GetValue()
			}
		}
	}
	return counters, gauges
}

// notFallen reports counters that were higher before.
func notFallen(t *testing.T, before, after map[string]float64) {
	t.Helper()
	for name, was := range before {
		if is, ok := after[name]; !ok || is < was {
			t.Errorf("%s: got %v after %v, want it not to fall", name, is, was)
		}
	}
}
