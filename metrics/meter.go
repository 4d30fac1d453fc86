package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-go/weir/streamcredit"
)

var meterReadings = []reading[streamcredit.MeterStats]{
	{
		"open", "Streams that are open.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Streams) },
	},
	{
		"opened_total", "Streams that were ever opened.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Opened) },
	},
	{
		"sent_elements_total", "Elements sent.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Sent) },
	},
	{
		"sent_bytes_total", "Size of the elements sent.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.SentBytes) },
	},
	{
		"sent_controls_total", "Control messages sent, alone or on an element.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.ControlSent) },
	},
	{
		"received_elements_total", "Elements received.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Received) },
	},
	{
		"received_bytes_total", "Size of the elements received, where something bounds it.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.ReceivedBytes) },
	},
	{
		"received_controls_total", "Control messages received, alone or on an element.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.ControlReceived) },
	},
	{
		"credit", "Elements that senders may send now, where demand is bounded.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Credit) },
	},
	{
		"unbounded_senders", "Senders that were asked for all that there is.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Unbounded) },
	},
	{
		"starved_seconds_total", "Time in which a sender waited for demand, summed over senders.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return s.StarvedSeconds },
	},
	{
		"starving_senders", "Senders that wait for demand now.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Starving) },
	},
	{
		"demand", "Elements that receivers have asked for and not received, where demand is bounded.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Demand) },
	},
	{
		"window", "Elements that receivers hold or have asked for at most, where they have a window.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Window) },
	},
	{
		"lag", "Elements received that their consumers are not done with.",
		prometheus.GaugeValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Lag) },
	},
	{
		"waited_seconds_total", "Time in which a consumer waited for an element, summed over receivers.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return s.WaitedSeconds },
	},
	{
		"dropped_elements_total", "Elements that outboxes dropped.",
		prometheus.CounterValue, func(s *streamcredit.MeterStats) float64 { return float64(s.Dropped) },
	},
}

// reasons is the closed set of values of the label reason. Any other reason of a meter does
// not become a label.
var reasons = []streamcredit.Reason{
	streamcredit.InvalidDemand,
	streamcredit.DemandTooLarge,
	streamcredit.UnexpectedFrame,
	streamcredit.VersionMismatch,
	streamcredit.CreditExceeded,
	streamcredit.BytesExceeded,
	streamcredit.MessageTooLarge,
	streamcredit.AfterTerminal,
	streamcredit.CountMismatch,
	streamcredit.InvalidConsumed,
	streamcredit.ControlFlood,
	streamcredit.HandshakeTimeout,
	streamcredit.FirstRequestTimeout,
	streamcredit.CreditStarved,
	streamcredit.PeerStalled,
	streamcredit.BudgetExhausted,
}

// A meterSeries holds the metrics of one meter.
type meterSeries struct {
	meter      *streamcredit.Meter
	violations *prometheus.Desc
	readings   table[streamcredit.MeterStats]
}

func newMeterSeries(m *streamcredit.Meter) *meterSeries {
	of := describer{"stream", prometheus.Labels{"meter": m.Name()}}
	return &meterSeries{
		meter:    m,
		readings: newTable(of, meterReadings),
		violations: of.desc("violations_total",
			"Streams that ended because the peer broke the protocol or a time limit passed.", "reason"),
	}
}

func (s *meterSeries) describe(ch chan<- *prometheus.Desc) {
	ch <- s.violations
	s.readings.describe(ch)
}

func (s *meterSeries) collect(ch chan<- prometheus.Metric) {
	now := s.meter.Stats()
	for _, why := range reasons {
		ch <- prometheus.MustNewConstMetric(s.violations, prometheus.CounterValue,
			float64(now.Violations[why]), strings.ToLower(string(why)))
	}
	s.readings.collect(ch, &now)
}
