// Package metrics shows gates of package admit to Prometheus.
//
// Gauges and counters are read from [admit.Gate.Stats] when somebody scrapes:
// a call that is let in at once costs nothing. Only the time waited is measured
// as it happens, by hooks, on calls that were slow already.
//
//	gate, err := admit.New(admit.WithName("api"))
//	...
//	collector, err := metrics.NewCollector(gate)
//	...
//	err = prometheus.Register(collector)
//
// Every series exists from the first scrape, with zero, so that rate() and
// alerts see the first event. Every metric has the label gate, the name that
// admit.WithName gave; all other labels are closed sets of package admit.
// Nothing that a caller sends becomes a label.
//
// # Metrics
//
// What each tells whoever is on call:
//
//	name                      type       labels         what it tells
//	weir_calls_total          counter    outcome        Goodput is outcome="success". A growing share of "overload"
//	                                                    says that something behind this gate is too busy.
//	weir_refusals_total       counter    class, reason  What callers were told no for. "critical" that is not 0 means
//	                                                    that shedding the rest is no longer enough. In a dry run:
//	                                                    what would have been refused.
//	weir_left_total           counter                   Callers that gave up before their turn: their deadlines are
//	                                                    shorter than the queue.
//	weir_limit                gauge                     How many calls may run. A fall at equal load: each call has
//	                                                    become slower, or something behind has.
//	weir_limit_changes_total  counter                   0 for hours under load: it is fixed, or sees no samples.
//	weir_in_flight            gauge                     How many calls run. Above the limit while a lower one drains,
//	                                                    and in a dry run.
//	weir_utilization_ratio    gauge                     In flight, divided by the limit. Near 1 for long: there is no
//	                                                    room left, and the next burst will be refused.
//	weir_queue_length         gauge                     How many calls wait. A queue that is always full looks healthy
//	                                                    to whoever watches only throughput: all that it adds is delay.
//	weir_queue_capacity       gauge                     How many may wait: what to compare the length with.
//	weir_wait_seconds         histogram  result         How long calls waited that were let in ("admitted"), that
//	                                                    waited in vain ("refused"), or whose caller gave up ("left").
//	weir_running_seconds_total
//	                          counter                   The time that calls have run. Its rate is the mean number in
//	                                                    flight, which a scrape of the gauge can miss; divided by the
//	                                                    rate of weir_calls_total it is the mean time of a call.
//	weir_panics_total         counter                   Panics of hooks and of the algorithm, each survived. Not 0 is
//	                                                    a bug to report.
//	weir_draining             gauge                     1 while the server leaves. For longer than a roll-out takes:
//	                                                    it hangs in GracefulStop.
//	weir_dry_run              gauge                     1 while nothing is refused. In production at night: somebody
//	                                                    forgot to turn the gate on.
//
// outcome is success, overload or ignored ([admit.Outcome]); class is default,
// critical, sheddable or background ([admit.Class]); reason is queue_full,
// displaced, deadline_too_close, waited_too_long or draining ([admit.Reason]).
//
// weir_wait_seconds is a classic histogram and a native one at once: a server
// that scrapes native histograms gets a resolution of 10 % at any magnitude,
// others get fixed buckets. Calls that did not wait are not in it: refused at
// once, they would hide how long the others waited. In a dry run the calls that
// would have waited are in it, with a wait of 0.
//
// weir_limit_changes_total and weir_wait_seconds begin with [NewCollector];
// everything else counts since the gate was made.
package metrics
