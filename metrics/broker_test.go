package metrics_test

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/metrics"
)

// letters is a broker with some messages, given by the number of the delivery.
type letters struct{ left []int }

func (l *letters) Fetch(ctx context.Context, _ int) ([]*broker.Message, error) {
	if len(l.left) == 0 {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	attempt := l.left[0]
	l.left = l.left[1:]
	m := broker.Message{ID: strconv.Itoa(len(l.left)), Attempt: attempt}
	return []*broker.Message{broker.NewMessage(m, l)}, nil
}

func (*letters) Close(context.Context) error              { return nil }
func (*letters) Ack(context.Context) error                { return nil }
func (*letters) Requeue(context.Context) error            { return nil }
func (*letters) DeadLetter(context.Context, string) error { return nil }
func (*letters) Extend(context.Context) error             { return nil }

func TestExpositionSaysWhatAConsumerDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := broker.NewMeter("payments")
		c, err := metrics.NewCollector(m)
		if err != nil {
			t.Fatal(err)
		}
		r := show(t, prometheus.NewPedanticRegistry(), c)
		golden(t, r, "broker_first_scrape.prom")
		quiet := slog.New(slog.DiscardHandler)
		source, err := broker.NewSource(&letters{left: []int{1, 1, 2, 5, 1}},
			broker.SourceConfig{Meter: m, Logger: quiet, ExtendEvery: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		gate, err := admit.New(admit.WithFixedLimit(2))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- broker.Consume(ctx, source, func(_ context.Context, m *broker.Message) error {
				switch m.ID {
				case "3":
					panic("oh")
				case "1":
					return errors.New("broken")
				case "0":
					return status.Error(codes.Unavailable, "")
				}
				return nil
			}, broker.ConsumeConfig{Gate: gate, Meter: m, Logger: quiet, MaxPause: time.Second, RetryDelay: time.Second * 2})
		}()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		s := m.Stats()
		if s.Paused != 1 || s.Held != 2 || s.Wanted < 2 || s.Redelivered != 2 || s.Panics != 1 || s.PausedSeconds < 1 {
			t.Errorf("stats: got %+v, want a pause, two messages held and one panic", s)
		}
		problems, err := testutil.GatherAndLint(r)
		if err != nil || len(problems) > 0 {
			t.Errorf("got %v, %v, want metrics as Prometheus has them", problems, err)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for name, want := range map[string]float64{
			"weir_broker_held": 0, "weir_broker_wanted": 0, "weir_broker_paused": 0, "weir_broker_failed_total": 2,
		} {
			if got := value(t, r, name); got != want {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	})
}

// value returns the value of a metric that has one series.
func value(t *testing.T, r prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("%s: got no such metric", name)
	return 0
}

func TestTwoBrokerMeters(t *testing.T) {
	_, err := metrics.NewCollector(broker.NewMeter("a"), broker.NewMeter("a"), &broker.Meter{})
	wantMistakes(t, true, err, `broker meter name: got "a" more than once`, "without a name")
}
