// Package metrics shows gates of package admit, streams of package streamcredit, and
// the breakers and throttles of package interceptors to Prometheus.
//
// # Gates
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
//	weir_limit                gauge                     How many permits there are. A fall at equal load: each call has
//	                                                    become slower, or something behind has.
//	weir_limit_changes_total  counter                   0 for hours under load: it is fixed, or sees no samples.
//	weir_in_flight            gauge                     How many are in use. Above the limit while a lower one drains,
//	                                                    and in a dry run.
//	weir_utilization_ratio    gauge                     In flight, divided by the limit. Near 1 for long: there is no
//	                                                    room left, and the next burst will be refused.
//	weir_queue_length         gauge                     How many calls wait. A queue that is always full looks healthy
//	                                                    to whoever watches only throughput: all that it adds is delay.
//	weir_queue_capacity       gauge                     How many may wait: what to compare the length with.
//	weir_class_waiting        gauge      class          How many calls of a class wait. "critical" that is not near 0: even
//	                                                    what matters most has to wait.
//	weir_class_permits        gauge      class          How many permits a class has, where classes have shares or calls
//	                                                    have tenants. At its share while its calls wait: it wants more.
//	weir_tenants              gauge                     How many tenants have calls. With refusals for over_share: few
//	                                                    of them want more than all others leave.
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
// critical, sheddable, background or a name from [admit.WithClass]; reason is
// queue_full, displaced, deadline_too_close, waited_too_long, draining,
// over_share, over_quota, memory_pressure, gc_pressure, processor_pressure or
// under_pressure ([admit.Reason]). Tenants are counted and never named: a label that
// callers choose is a series for each of them.
//
// weir_wait_seconds is a classic histogram and a native one at once: a server
// that scrapes native histograms gets a resolution of 10 % at any magnitude,
// others get fixed buckets. Calls that did not wait are not in it: refused at
// once, they would hide how long the others waited. In a dry run the calls that
// would have waited are in it, with a wait of 0.
//
// weir_limit_changes_total and weir_wait_seconds begin with [NewCollector];
// everything else counts since the gate was made.
//
// # Streams
//
// Streams are counted by meters of package streamcredit: one for each kind of
// stream, not for each stream. All is read from [streamcredit.Meter.Stats] when
// somebody scrapes, once for each meter, so that the numbers of one scrape are
// of one moment for each stream.
//
//	meter := streamcredit.NewMeter("orders")
//	...
//	out, query, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(meter))
//	...
//	collector, err := metrics.NewStreamCollector(meter)
//	...
//	err = prometheus.Register(collector)
//
// Here, too, every series exists from the first scrape. Every metric has the
// label meter, the name that NewMeter was given; the only other label is a closed
// set of package streamcredit. A stream is one end of one: if both ends are in
// this process, give each a meter of its own, or everything is there twice. What a
// stream has counted stays when it has ended.
//
//	name                      type       labels  what it tells
//	weir_stream_open          gauge              How many streams are open. Climbing at an equal number of clients:
//	                                             handlers that do not return, or clients that do not Close.
//	weir_stream_opened_total  counter            Its rate, high while weir_stream_open is level: streams that break and
//	                                             are opened again, each with a new handshake.
//	weir_stream_sent_elements_total, weir_stream_received_elements_total
//	                          counter            Throughput. Sent that stands still while weir_stream_starving_senders is
//	                                             not 0: the receivers do not keep up; while it is 0: the source is dry.
//	weir_stream_sent_bytes_total, weir_stream_received_bytes_total
//	                          counter            The same in bytes; by elements, their mean size. Received ones count only
//	                                             where the receiver bounds sizes: WithByteWindow, WithMaxMessageBytes or
//	                                             WithBudget.
//	weir_stream_sent_controls_total, weir_stream_received_controls_total
//	                          counter            What the protocol costs. Near one for each element: windows of one or
//	                                             two. Much received without elements: a peer that floods.
//	weir_stream_credit        gauge              Elements that senders may send at once. 0 with starving senders: demand
//	                                             is the bottleneck. High for long: there is nothing to send.
//	weir_stream_unbounded_senders
//	                          gauge              Senders whose receiver asked for all there is, or knows nothing of credit:
//	                                             nothing slows them down but HTTP/2. They are not in weir_stream_credit.
//	weir_stream_starved_seconds_total
//	                          counter            Its rate is the mean number of senders that wait for demand, which a
//	                                             scrape of the gauge can miss; by weir_stream_open it is their share of
//	                                             the time. Near 1: the receivers are the bottleneck.
//	                                             Ready and SendSeq wait for demand even when there is nothing to send.
//	weir_stream_starving_senders
//	                          gauge              Senders that wait for demand now. The same ones for long: a consumer
//	                                             hangs (WithSendStallTimeout ends its stream).
//	weir_stream_demand        gauge              Elements that receivers have asked for and not received. As high as
//	                                             weir_stream_window: the senders, or the network, are the bottleneck.
//	weir_stream_window        gauge              The sum of the receivers' windows, and with it the most elements that they
//	                                             hold: what to size memory by. Manual demand has none.
//	weir_stream_lag           gauge              Elements that have arrived and whose consumers are not done with them. As
//	                                             high as weir_stream_window: the consumers are the bottleneck.
//	weir_stream_waited_seconds_total
//	                          counter            The mirror of starved seconds: its rate is the mean number of receivers
//	                                             whose consumer waits for elements. Both near 0: all is well matched.
//	                                             Both high: the window is too small for the way between them.
//	weir_stream_dropped_elements_total
//	                          counter            Elements that outboxes dropped, as their policies say: subscribers that are
//	                                             too slow for their source.
//	weir_stream_violations_total
//	                          counter    reason  Streams that this end has ended. credit_starved, first_request_timeout and
//	                                             peer_stalled: peers that hang. budget_exhausted: this process is full.
//	                                             Any other: a peer with a bug, or a hostile one.
//
// reason is a [streamcredit.Reason] in lower case: invalid_demand,
// demand_too_large, unexpected_frame, version, credit_exceeded, bytes_exceeded,
// message_too_large, after_terminal, count_mismatch, invalid_consumed,
// control_flood, handshake_timeout, first_request_timeout, credit_starved,
// peer_stalled or budget_exhausted. It is counted where it was found: the peer
// sees an error of its stream.
//
// # Pressure
//
// A monitor of package pressure is read from [pressure.Monitor.Stats] when somebody
// scrapes. A process has one.
//
//	collector, err := metrics.NewPressureCollector(monitor)
//	...
//	err = prometheus.Register(collector)
//
// signal is memory, gc, processors, or the name of a signal of the program's own.
//
//	name                         type     labels  what it tells
//	weir_pressure_ratio          gauge    signal  How much of the resource is used up: 1 is the end. Climbing for hours:
//	                                              a leak, and this is how long it still takes.
//	weir_pressure_level          gauge            0 calm, 1 elevated, 2 high, 3 extreme. Not 0: gates refuse classes, with
//	                                              the reasons in weir_refusals_total that end in _pressure.
//	weir_pressure_level_changes_total
//	                             counter          Its rate is high where the level comes and goes: refusals help, and not
//	                                              for long. The process is too small for its load.
//	weir_pressure_signal_failing gauge    signal  1 while the signal has no value and counts as 0: see the log, or the
//	                                              Err of its SignalStats. memory fails where there is no limit to see.
//	weir_pressure_signal_failures_total
//	                             counter  signal  Samples that the signal failed.
//	weir_pressure_panics_total   counter          Panics of hooks, all survived.
//
// # Clients
//
// Breakers and throttles say what a client does not send, and why. All is read from
// [interceptors.Breaker.Stats] and [interceptors.Throttle.Stats] when somebody
// scrapes; calls cost nothing more. The gates of a client are gates like others.
//
//	breaker, err := interceptors.NewBreaker(interceptors.BreakerConfig{Name: "backends"})
//	...
//	collector, err := metrics.NewBreakerCollector(breaker) // NewThrottleCollector for a throttle
//	...
//	err = prometheus.Register(collector)
//
// Every metric of a breaker has the label breaker, every one of a throttle the label
// throttle: the Name of its configuration. target is that of the connection in its
// canonical form, as "dns:///backend:443", and method is a full method name, as
// "/weir.demo.v1.DemoService/Work": what this program calls, not what it is sent.
// There are at most 1025 circuits of a breaker and as many methods with classes of a throttle: what
// comes when there are 1024, or is not valid UTF-8, is shown together as "*". So a
// breaker has at most 7176 series, seven for each circuit, and a throttle 5126. A
// program that forwards the methods that it is asked for gets that many, and others
// choose the names: do not collect that breaker.
//
// Only weir_breaker_circuits and weir_throttle_targets exist from the first scrape.
// The series of a circuit or a target begin with its first call, and stay.
//
//	name                      type     labels                 what it tells
//	weir_breaker_circuits     gauge                           How many methods of how many targets are called. 1025: more
//	                                                          than are told apart, and the last share the circuit "*".
//	weir_breaker_state        gauge    target, method, state  1 for the state that a circuit is in, 0 for the two others.
//	                                                          "open": callers get errors at once, because the method was
//	                                                          unwell. It stays open until somebody calls again: without
//	                                                          calls that says nothing about now. "half-open" for long:
//	                                                          the calls that are to find out hang, or are few.
//	weir_breaker_openings_total
//	                          counter  target, method         How often it opened, also anew after a call that was to
//	                                                          find out failed. Its rate near one in each OpenFor: the
//	                                                          method is down. Now and then: it flaps, or FailureRatio
//	                                                          and MinCalls are too eager.
//	weir_breaker_allowed_calls_total
//	                          counter  target, method         What was sent. Together with the refused ones: what callers
//	                                                          wanted.
//	weir_breaker_refused_calls_total
//	                          counter  target, method         What callers were told no for without the server hearing of
//	                                                          it. Look for the cause in the failed ones just before.
//	weir_breaker_failed_calls_total
//	                          counter  target, method         Calls that say that the server is unwell, slow ones included.
//	                                                          By the allowed ones it is about the share that FailureRatio
//	                                                          bounds: near it, the circuit is about to open.
//	weir_throttle_targets     gauge                           How many methods of targets are called, each class for itself.
//	                                                          1025: the last share "*".
//	weir_throttle_probability gauge    target, method, class  With which probability a call is refused now. Not 0: the
//	                                                          target accepts less than one call in K. Near 1 for long: it
//	                                                          is down, or refuses everything.
//	weir_throttle_accepted_calls_total, weir_throttle_rejected_calls_total
//	                          counter  target, method, class  What the target accepted and refused of what was sent. Fewer
//	                                                          accepted than one in K is what the throttle goes by.
//	weir_throttle_allowed_calls_total
//	                          counter  target, method, class  What was sent. Together with the refused ones: what callers
//	                                                          wanted.
//	weir_throttle_refused_calls_total
//	                          counter  target, method, class  What callers were told no for without the target hearing of
//	                                                          it: the load that the throttle keeps away.
//
// state is closed, half-open or open ([interceptors.BreakerState]). Everything counts
// since the breaker or the throttle was made.
package metrics
