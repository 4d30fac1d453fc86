// Package metrics exports gates of package admit, streams of package streamcredit, and
// the breakers and throttles of package interceptors to Prometheus.
//
// # Gates
//
// Gauges and counters are read from [admit.Gate.Stats] at each scrape, so a call that is
// admitted at once costs nothing. Only the time waited is measured when it happens, by
// hooks, on calls that waited anyway.
//
//	gate, err := admit.New(admit.WithName("api"))
//	...
//	collector, err := metrics.NewCollector(gate)
//	...
//	err = prometheus.Register(collector)
//
// Every series exists from the first scrape, with the value zero, so that rate() and
// alerts see the first event. Every metric has the label gate, which is the name from
// admit.WithName. The values of all other labels are closed sets of package admit. Nothing
// that a caller sends becomes a label.
//
// The metrics, and how to read them on call:
//
//	name                      type       labels         how to read it
//	weir_calls_total          counter    outcome        Goodput is outcome="success". A growing share of "overload"
//	                                                    means that something behind this gate is too busy.
//	weir_refusals_total       counter    class, reason  Refused calls. If "critical" is not 0, shedding the other
//	                                                    classes is no longer enough. In a dry run, the calls that
//	                                                    would have been refused.
//	weir_left_total           counter                   Callers that gave up while they waited. Their deadlines are
//	                                                    shorter than the queue.
//	weir_limit                gauge                     The number of permits. If it falls at equal load, calls have
//	                                                    become slower, here or behind this server.
//	weir_limit_changes_total  counter                   If it is 0 for hours under load, the limit is fixed, or gets no
//	                                                    samples.
//	weir_in_flight            gauge                     Permits in use. It exceeds the limit after the limit fell, and
//	                                                    in a dry run.
//	weir_utilization_ratio    gauge                     In flight divided by the limit. If it is near 1 for long, the
//	                                                    next burst will be refused.
//	weir_queue_length         gauge                     Calls that wait. A queue that is always full does not lower the
//	                                                    throughput, but it adds delay to every call.
//	weir_queue_capacity       gauge                     The largest number of calls that may wait.
//	weir_class_waiting        gauge      class          Calls of a class that wait. If "critical" is not near 0, even the
//	                                                    most important calls wait.
//	weir_class_permits        gauge      class          Permits that a class holds, if classes have shares or calls have
//	                                                    tenants. A class at its share with calls that wait wants more.
//	weir_tenants              gauge                     Tenants with calls. With refusals because of over_share, a few of
//	                                                    them want more than the others leave.
//	weir_wait_seconds         histogram  result         The wait of calls that were then admitted ("admitted"), refused
//	                                                    ("refused"), or given up by their callers ("left").
//	weir_running_seconds_total
//	                          counter                   Total time that calls have run. Its rate is the mean number in
//	                                                    flight, which a scrape of the gauge can miss. Divided by the
//	                                                    rate of weir_calls_total, it is the mean latency of a call.
//	weir_panics_total         counter                   Panics of hooks and of the algorithm, all recovered. If it is not
//	                                                    0, there is a bug to report.
//	weir_draining             gauge                     1 while the gate drains. If that takes longer than a roll-out, the
//	                                                    server hangs in GracefulStop.
//	weir_dry_run              gauge                     1 during a dry run, in which nothing is refused. A dry run that was
//	                                                    left on protects nothing.
//
// outcome is success, overload or ignored ([admit.Outcome]). class is default, critical,
// sheddable, background or a name from [admit.WithClassConfig]. reason is
// queue_full, displaced, deadline_too_close, waited_too_long, draining,
// over_share or over_quota ([admit.Reason]). Tenants are counted but never named, because a
// label that callers choose has a series for each of its values.
//
// weir_wait_seconds is both a classic and a native histogram. A server that scrapes native
// histograms gets a resolution of 10 % at any magnitude, and others get fixed buckets. Calls
// that did not wait are not in it. Calls that are refused at once would hide how long the
// others waited. In a dry run it has the calls that would have waited, with a wait of 0.
//
// weir_limit_changes_total and weir_wait_seconds count from [NewCollector] on. Everything
// else counts from the creation of the gate.
//
// # Streams
//
// Streams are counted by meters of package streamcredit. Create one for each kind of
// stream, not for each stream. Each scrape reads [streamcredit.Meter.Stats] once for each
// meter, so that all numbers of a stream are of one moment.
//
//	meter := streamcredit.NewMeter("orders")
//	...
//	out, query, err := streamcredit.ServeSend(stream, streamcredit.WithMeter(meter))
//	...
//	collector, err := metrics.NewStreamCollector(meter)
//	...
//	err = prometheus.Register(collector)
//
// Every series exists from the first scrape. Every metric has the label meter, which is the
// name of the meter. The values of the only other label are a closed set of package
// streamcredit. A meter counts ends of streams. If both ends of a stream are in this
// process, give each end a meter of its own, or elements count twice. The counts of a stream
// stay after its end.
//
//	name                      type       labels  how to read it
//	weir_stream_open          gauge              Open streams. If it climbs at an equal number of clients, handlers do
//	                                             not return, or clients do not Close.
//	weir_stream_opened_total  counter            If its rate is high while weir_stream_open is level, streams break and
//	                                             are opened again, each with a new handshake.
//	weir_stream_sent_elements_total, weir_stream_received_elements_total
//	                          counter            Throughput. If nothing is sent while weir_stream_starving_senders is not
//	                                             0, the receivers do not keep up. If it is 0, the source is dry.
//	weir_stream_sent_bytes_total, weir_stream_received_bytes_total
//	                          counter            Throughput in bytes. Divided by elements, it is their mean size. Received
//	                                             bytes count only if the receiver bounds sizes with WithByteWindow,
//	                                             WithMaxMessageBytes or WithBudget.
//	weir_stream_sent_controls_total, weir_stream_received_controls_total
//	                          counter            The cost of the protocol. Near one for each element, windows are one or
//	                                             two. Many received without elements mean a peer that floods.
//	weir_stream_credit        gauge              Elements that senders may send at once. If it is 0 with starving senders,
//	                                             demand is the bottleneck. If it is high for long, there is nothing to send.
//	weir_stream_unbounded_senders
//	                          gauge              Senders with unbounded demand, or with a receiver without credit. Only
//	                                             HTTP/2 slows them down. They are not in weir_stream_credit.
//	weir_stream_starved_seconds_total
//	                          counter            Its rate is the mean number of senders that wait for demand, which a
//	                                             scrape of the gauge can miss. Divided by weir_stream_open it is their share
//	                                             of the time. If it is near 1, the receivers are the bottleneck.
//	                                             Ready and SendSeq wait for demand even when there is nothing to send.
//	weir_stream_starving_senders
//	                          gauge              Senders that wait for demand now. If they stay, a consumer hangs.
//	                                             WithSendStallTimeout ends its stream.
//	weir_stream_demand        gauge              Elements that receivers have asked for and not received. If it is as high as
//	                                             weir_stream_window, the senders or the network are the bottleneck.
//	weir_stream_window        gauge              The sum of the receivers' windows, which bounds the elements that they
//	                                             hold. Size memory by it. Manual demand has no window.
//	weir_stream_lag           gauge              Elements that have arrived and are not consumed. If it is as high as
//	                                             weir_stream_window, the consumers are the bottleneck.
//	weir_stream_waited_seconds_total
//	                          counter            Its rate is the mean number of receivers with a consumer that waits for
//	                                             elements. If it and starved seconds are near 0, both ends match. If both
//	                                             are high, the window is too small for the round trip.
//	weir_stream_dropped_elements_total
//	                          counter            Elements that outboxes dropped by their policies. Their subscribers are too
//	                                             slow for the source.
//	weir_stream_violations_total
//	                          counter    reason  Streams that this end has ended. After credit_starved, first_request_timeout
//	                                             and peer_stalled the peer hangs. After budget_exhausted this process is full.
//	                                             After any other, the peer has a bug or is hostile.
//
// reason is a [streamcredit.Reason] in lower case. It is invalid_demand,
// demand_too_large, unexpected_frame, version, credit_exceeded, bytes_exceeded,
// message_too_large, after_terminal, count_mismatch, invalid_consumed,
// control_flood, handshake_timeout, first_request_timeout, credit_starved,
// peer_stalled or budget_exhausted. It is counted at the end that found the violation. The
// peer sees an error of its stream.
//
// # Clients
//
// Breakers and throttles count the calls that a client does not send. Each scrape reads
// [interceptors.Breaker.Stats] and [interceptors.Throttle.Stats], so calls cost nothing
// more. Use a [Collector] for the gates of a client.
//
//	breaker, err := interceptors.NewBreaker(interceptors.BreakerConfig{Name: "backends"})
//	...
//	collector, err := metrics.NewBreakerCollector(breaker) // NewThrottleCollector for a throttle
//	...
//	err = prometheus.Register(collector)
//
// Every metric of a breaker has the label breaker, and every metric of a throttle the label
// throttle. Its value is the Name of the configuration. target is the target of the
// connection in its canonical form, such as "dns:///backend:443". method is a full method
// name, such as "/weir.demo.v1.DemoService/Work". Both come from calls that this program
// makes, not from calls that it receives.
//
// A breaker has at most 1025 circuits, and a throttle as many methods with classes. Beyond
// 1024, and for names that are not valid UTF-8, all share the name "*". So a breaker has at
// most 7176 series, seven for each circuit, and a throttle 5126. A program that forwards the
// methods of its callers reaches that number, and its callers choose the names. Do not
// collect that breaker.
//
// Only weir_breaker_circuits and weir_throttle_targets exist from the first scrape. The
// series of a circuit or a target begin with its first call, and stay.
//
//	name                      type     labels                 how to read it
//	weir_breaker_circuits     gauge                           Methods of targets that were called. At 1025, further methods
//	                                                          share the circuit "*".
//	weir_breaker_state        gauge    target, method, state  1 for the state of a circuit, 0 for the two others. While it
//	                                                          is "open", callers get errors at once, because the method
//	                                                          failed. It stays open until the next call, so without
//	                                                          calls it says nothing about now. If it is "half-open" for
//	                                                          long, the probing calls hang, or are few.
//	weir_breaker_openings_total
//	                          counter  target, method         How often the circuit opened, failed probes included. If its
//	                                                          rate is near one in each OpenFor, the method is down. If
//	                                                          it opens now and then, the method flaps, or FailureRatio
//	                                                          and MinCalls are too eager.
//	weir_breaker_allowed_calls_total
//	                          counter  target, method         Calls that were sent. With the refused ones they are all
//	                                                          calls of the program.
//	weir_breaker_refused_calls_total
//	                          counter  target, method         Calls that were refused without reaching the server. The
//	                                                          failed calls just before show the cause.
//	weir_breaker_failed_calls_total
//	                          counter  target, method         Calls that count as failures, slow ones included. Divided by
//	                                                          the allowed ones, it is about the share that FailureRatio
//	                                                          bounds. Near that, the circuit is about to open.
//	weir_throttle_targets     gauge                           Methods of targets that were called, by class. At 1025,
//	                                                          further ones share "*".
//	weir_throttle_probability gauge    target, method, class  The probability with which a call is refused now. If it is
//	                                                          not 0, the target accepts less than one call in K. If it is
//	                                                          near 1 for long, the target is down, or refuses every call.
//	weir_throttle_accepted_calls_total, weir_throttle_rejected_calls_total
//	                          counter  target, method, class  Sent calls that the target accepted and refused. The throttle
//	                                                          refuses if fewer than one in K are accepted.
//	weir_throttle_allowed_calls_total
//	                          counter  target, method, class  Calls that were sent. With the refused ones they are all
//	                                                          calls of the program.
//	weir_throttle_refused_calls_total
//	                          counter  target, method, class  Calls that were refused without reaching the target. That is
//	                                                          the load that the throttle keeps away.
//
// state is closed, half-open or open ([interceptors.BreakerState]). Everything counts from
// the creation of the breaker or the throttle.
package metrics
