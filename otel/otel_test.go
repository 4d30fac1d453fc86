package otel_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
	"github.com/weir-go/weir/limit"
	"github.com/weir-go/weir/metrics"
	"github.com/weir-go/weir/otel"
	"github.com/weir-go/weir/pressure"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
	"github.com/weir-go/weir/streamcredit"
)

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newGate returns a gate for one call at a time, with a place for one that waits.
func newGate(t *testing.T) *admit.Gate {
	t.Helper()
	one := must[*limit.Fixed](t)(limit.NewFixed(1))
	return must[*admit.Gate](t)(admit.New(admit.WithName("api"), admit.WithLimit(one),
		admit.WithQueue(admit.QueueConfig{Capacity: 1, MaxWait: time.Second})))
}

// incident makes one call wait for 30 ms, one be refused on arrival, and one give up after 30 ms.
func incident(ctx context.Context, t *testing.T, g *admit.Gate) {
	t.Helper()
	acquire := func(ctx context.Context) { // from another goroutine
		if p, err := g.Acquire(ctx, admit.Call{}); err == nil {
			p.Release(admit.Success)
		}
	}
	first := must[admit.Permit](t)(g.Acquire(ctx, admit.Call{}))
	go acquire(ctx)
	synctest.Wait()
	if _, err := g.Acquire(ctx, admit.Call{}); err == nil {
		t.Error("a call beyond the queue: got a permit, want a refusal")
	}
	time.Sleep(30 * time.Millisecond)
	first.Release(admit.Success)
	synctest.Wait()

	second := must[admit.Permit](t)(g.Acquire(ctx, admit.Call{}))
	short, cancel := context.WithCancel(ctx)
	go acquire(short)
	time.Sleep(30 * time.Millisecond)
	cancel()
	synctest.Wait()
	second.Release(admit.Success)
}

// retried is a meter of retries that has seen a call.
func retried(t *testing.T) *retry.Meter {
	t.Helper()
	meter := retry.NewMeter("payments")
	dial := must[[]grpc.DialOption](t)(interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}, Retries: meter}))
	conn := must[*grpc.ClientConn](t)(grpc.NewClient("passthrough:///a", append(dial, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return nil, io.ErrClosedPipe }))...))
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.Invoke(t.Context(), "/s/m", &debugpb.GetSnapshotRequest{}, &debugpb.GetSnapshotResponse{}); err == nil {
		t.Fatal("a call to nowhere: got no error, want one")
	}
	return meter
}

// all returns one source of each kind that has something to show.
func all(t *testing.T, g *admit.Gate) []metrics.Source {
	t.Helper()
	circuits := must[*breaker.Breaker](t)(breaker.New(breaker.Config{}))
	targets := must[*throttle.Throttle](t)(throttle.New(throttle.Config{}))
	monitor := must[*pressure.Monitor](t)(pressure.New())
	conn := must[*grpc.ClientConn](t)(grpc.NewClient("passthrough:///a", grpc.WithTransportCredentials(insecure.NewCredentials())))
	t.Cleanup(func() { _ = conn.Close() })
	fail := func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		return status.Error(codes.Unavailable, "as told")
	}
	for range 3 {
		_ = breaker.Unary(circuits)(t.Context(), "/s/m", nil, nil, conn, fail)
		_ = throttle.Unary(targets)(t.Context(), "/s/m", nil, nil, conn, fail)
	}
	return []metrics.Source{g, circuits, targets, retried(t), monitor, streamcredit.NewMeter("feed"), broker.NewMeter("orders")}
}

// collected returns the values that OpenTelemetry collects, by instrument and attributes.
func collected(t *testing.T, reader metric.Reader) (values map[string]float64, units map[string]string) {
	t.Helper()
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		t.Fatal(err)
	}
	values, units = map[string]float64{}, map[string]string{}
	points := func(name string, all []metricdata.DataPoint[float64]) {
		for _, p := range all {
			values[name+p.Attributes.Encoded(attribute.DefaultEncoder())] = p.Value
		}
	}
	for _, scope := range data.ScopeMetrics {
		for _, m := range scope.Metrics {
			units[m.Name] = m.Unit
			if m.Description == "" {
				t.Errorf("%s: got no description, want one", m.Name)
			}
			switch d := m.Data.(type) {
			case metricdata.Gauge[float64]:
				points(m.Name, d.DataPoints)
			case metricdata.Sum[float64]:
				if !d.IsMonotonic {
					t.Errorf("%s: got a sum that may fall, want a counter", m.Name)
				}
				points(m.Name, d.DataPoints)
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					values[m.Name+p.Attributes.Encoded(attribute.DefaultEncoder())] = float64(p.Count)
				}
			default:
				t.Errorf("%s: got a %T, want a gauge, a sum or a histogram", m.Name, d)
			}
		}
	}
	return values, units
}

// translated is the name of a metric of Prometheus in OpenTelemetry, and its unit.
func translated(prom string) (name, unit string) {
	part := "gate"
	name = strings.TrimSuffix(strings.TrimPrefix(prom, "weir_"), "_total")
	for _, p := range []string{"stream", "breaker", "throttle", "retry", "pressure", "broker"} {
		if rest, ok := strings.CutPrefix(name, p+"_"); ok {
			part, name = p, rest
		}
	}
	if sum, ok := strings.CutSuffix(prom, "_seconds_total"); ok {
		name = strings.TrimPrefix(strings.TrimPrefix(sum, "weir_"), part+"_") + "_time_seconds"
	}
	unit = "1"
	for suffix, u := range map[string]string{"_seconds": "s", "_bytes": "By", "_ratio": "1"} {
		if short, ok := strings.CutSuffix(name, suffix); ok {
			name, unit = short, u
		}
	}
	return "weir." + part + "." + name, unit
}

// The instruments have the values of the metrics for Prometheus, series by series.
func TestInstrumentsHaveTheValuesOfThePrometheusMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		sources := all(t, g)
		reader := metric.NewManualReader()
		provider := metric.NewMeterProvider(metric.WithReader(reader))
		if err := otel.Register(provider.Meter("test"), sources...); err != nil {
			t.Fatalf("Register: got %v, want no error", err)
		}
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(must[*metrics.Collector](t)(metrics.NewCollector(sources...)))
		incident(t.Context(), t, g)

		got, units := collected(t, reader)
		series := 0
		for _, f := range must[[]*dto.MetricFamily](t)(registry.Gather()) {
			name, unit := translated(f.GetName())
			if units[name] != unit {
				t.Errorf("%s: got the unit %q of %s, want %q", f.GetName(), units[name], name, unit)
			}
			for _, m := range f.GetMetric() {
				var labels []attribute.KeyValue
				for _, l := range m.GetLabel() {
					labels = append(labels, attribute.String("weir."+l.GetName(), l.GetValue()))
				}
				set := attribute.NewSet(labels...)
				key := name + set.Encoded(attribute.DefaultEncoder())
				want := m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				if m.GetHistogram() != nil && want == 0 {
					continue // OpenTelemetry has no histogram without a value
				}
				if v, ok := got[key]; !ok || v != want {
					t.Errorf("%s: got %v (there: %v), want %v", key, v, ok, want)
				}
				series++
			}
		}
		if len(got) != series || series < 60 {
			t.Errorf("series: got %d in OpenTelemetry and %d in Prometheus, want as many, and many", len(got), series)
		}
		if v := got["weir.gate.refusalsweir.class=default,weir.gate=api,weir.reason=queue_full"]; v != 1 {
			t.Errorf("refusals: got %v, want 1", v)
		}
		if v := got["weir.gate.waitweir.gate=api,weir.result=admitted"]; v != 1 {
			t.Errorf("waits of admitted calls: got %v, want 1", v)
		}
		if v := got["weir.gate.waitweir.gate=api,weir.result=left"]; v != 1 {
			t.Errorf("waits of callers that left: got %v, want 1", v)
		}
	})
}

// Each metric of the documentation has its instrument.
func TestEachDocumentedMetricHasAnInstrument(t *testing.T) {
	text, err := os.ReadFile("../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		reader := metric.NewManualReader()
		if err := otel.Register(metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"), all(t, g)...); err != nil {
			t.Fatal(err)
		}
		incident(t.Context(), t, g)
		_, units := collected(t, reader)
		rows := regexp.MustCompile("(?m)^\\| `(weir_\\w+)` \\| (?:counter|gauge|histogram) ").FindAllSubmatch(text, -1)
		wanted := map[string]bool{}
		for _, row := range rows {
			name, _ := translated(string(row[1]))
			wanted[name] = true
			if _, ok := units[name]; !ok {
				t.Errorf("%s: got no instrument %s, want one", row[1], name)
			}
		}
		if len(rows) < 50 || len(wanted) != len(rows) || len(units) != len(rows) {
			t.Errorf("got %d instruments and %d names for %d metrics, want one for each; instruments: %v",
				len(units), len(wanted), len(rows), slices.Sorted(maps.Keys(units)))
		}
	})
}

func TestRegisterNamesEveryMistake(t *testing.T) {
	meter := metric.NewMeterProvider().Meter("test")
	if err := otel.Register(nil, newGate(t)); !errors.Is(err, otel.ErrConfig) || !strings.Contains(err.Error(), "meter: got nil") {
		t.Errorf("a nil meter: got %v, want an error that says so", err)
	}
	if err := otel.Register(meter); !errors.Is(err, otel.ErrConfig) || !strings.Contains(err.Error(), "sources: got none") {
		t.Errorf("no source: got %v, want an error that says so", err)
	}
	if err := otel.Trace(); !errors.Is(err, otel.ErrConfig) || !strings.Contains(err.Error(), "gates: got none") {
		t.Errorf("no gate: got %v, want an error that says so", err)
	}
	err := otel.Trace(nil, &admit.Gate{})
	if err == nil || !strings.Contains(err.Error(), "gate 1 of 2: got nil") || !strings.Contains(err.Error(), "gate 2 of 2:") {
		t.Errorf("a nil and a zero gate: got %v, want both named", err)
	}
}

// events returns the names of the events of the ended spans, with their attributes.
func events(recorder *tracetest.SpanRecorder) (all []string) {
	for _, s := range recorder.Ended() {
		for _, e := range s.Events() {
			set := attribute.NewSet(e.Attributes...)
			all = append(all, e.Name+" "+set.Encoded(attribute.DefaultEncoder()))
		}
	}
	return all
}

func TestSpansHaveEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		if err := otel.Trace(g); err != nil {
			t.Fatal(err)
		}
		recorder := tracetest.NewSpanRecorder()
		tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder)).Tracer("test")
		ctx, span := tracer.Start(t.Context(), "call")
		incident(ctx, t, g)
		otel.StarvedEvent(ctx, 2*time.Second)
		span.End()
		want := []string{
			"weir.refused weir.gate=api,weir.reason=queue_full,weir.wait=0",
			"weir.wait weir.gate=api,weir.wait=0.03",
			"weir.left weir.gate=api,weir.wait=0.03",
			"weir.stream.starved weir.wait=2",
		}
		if got := events(recorder); !slices.Equal(got, want) {
			t.Errorf("events:\ngot  %q\nwant %q", got, want)
		}
		incident(t.Context(), t, g) // without a span
		otel.StarvedEvent(t.Context(), time.Second)
		if got := events(recorder); len(got) != len(want) {
			t.Errorf("events after calls without a span: got %d, want %d as before", len(got), len(want))
		}
	})
}

// A long wait leads to its trace.
func TestWaitsHaveExemplars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t)
		reader := metric.NewManualReader()
		if err := otel.Register(metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"), g); err != nil {
			t.Fatal(err)
		}
		ctx, span := sdktrace.NewTracerProvider().Tracer("test").Start(t.Context(), "call")
		incident(ctx, t, g)
		span.End()
		var data metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &data); err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, m := range data.ScopeMetrics[0].Metrics {
			if h, ok := m.Data.(metricdata.Histogram[float64]); ok {
				for _, p := range h.DataPoints {
					for _, e := range p.Exemplars {
						if trace.TraceID(e.TraceID) == span.SpanContext().TraceID() {
							found++
						}
					}
				}
			}
		}
		if found != 2 {
			t.Errorf("exemplars with the trace of the calls: got %d, want 2", found)
		}
	})
}

func ExampleRegister() {
	gate, err := admit.New(admit.WithName("api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	reader := metric.NewManualReader() // a program uses a periodic reader with an exporter
	provider := metric.NewMeterProvider(metric.WithReader(reader))
	if err := otel.Register(provider.Meter("shop"), gate); err != nil {
		fmt.Println(err)
		return
	}
	if err := otel.Trace(gate); err != nil {
		fmt.Println(err)
		return
	}
	var data metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &data); err != nil {
		fmt.Println(err)
		return
	}
	for _, m := range data.ScopeMetrics[0].Metrics {
		if m.Name == "weir.gate.limit" {
			fmt.Println(m.Name, m.Data.(metricdata.Gauge[float64]).DataPoints[0].Value)
		}
	}
	// Output: weir.gate.limit 32
}
