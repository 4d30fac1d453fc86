// Package metrics shows gates, streams, breakers, throttles, retries, pressure and brokers to Prometheus.
//
// Use it in a program that Prometheus scrapes. Do not use it for numbers about single calls,
// because the hooks of package admit report each event.
//
//	gate, err := admit.New(admit.WithName("api"))
//	...
//	collector, err := metrics.NewCollector(gate)
//	...
//	err = prometheus.Register(collector)
//
// # Concepts
//
// A [Source] is a gate, a breaker, a throttle, a meter of retries, of streams or of a broker, or a
// monitor of pressure. A [Collector] shows one or more of them. It reads their Stats when
// Prometheus scrapes, so a call that does not wait costs nothing more. Only the waits are measured
// as they happen, by hooks of the gate.
//
// The name of a source is a label of all its metrics, named gate, breaker, throttle, meter or
// monitor. Other labels are closed sets, or names that this program chose. A value that a caller
// sends never becomes a label. Tenants are counted and never named.
//
// The series of gates, meters and monitors exist from the first scrape, with zero, so that rate()
// and alerts see the first event. Counters start when the source was made. Only
// weir_limit_changes_total and weir_wait_seconds start with the collector.
//
// # Gates
//
// The label class is default, critical, sheddable, background, or a name from [admit.WithClassConfig].
// The label outcome is an [admit.Outcome], and reason an [admit.Reason].
//
//	name                        type       labels         what it tells
//	weir_calls_total            counter    outcome        Goodput is outcome="success". If the share of "overload"
//	                                                      grows, a service behind this gate is too busy.
//	weir_refusals_total         counter    class, reason  Refused calls. If "critical" is not 0, shedding the rest is
//	                                                      no longer enough. In a dry run: calls that would have been
//	                                                      refused.
//	weir_left_total             counter                   Callers that gave up while they waited. Their deadlines are
//	                                                      shorter than the queue.
//	weir_limit                  gauge                     Number of permits. A fall at equal load: calls are slower.
//	weir_min_limit              gauge                     The smallest limit. weir_limit at this value while calls are
//	                                                      refused: the limit cannot protect any more. 0: it is fixed.
//	weir_limit_changes_total    counter                   0 for hours under load: the limit is fixed, or gets no
//	                                                      samples.
//	weir_in_flight              gauge                     Permits in use. Above the limit while a lower limit takes
//	                                                      effect, and in a dry run.
//	weir_utilization_ratio      gauge                     In flight by limit. Near 1 for long: the next burst is
//	                                                      refused.
//	weir_queue_length           gauge                     Calls that wait. A queue that is always full adds only delay.
//	weir_queue_capacity         gauge                     The bound of the queue length.
//	weir_max_wait_seconds       gauge                     The bound of a wait. weir_wait_seconds near it: the queue only
//	                                                      adds delay.
//	weir_class_waiting          gauge      class          Calls of a class that wait.
//	weir_class_permits          gauge      class          Permits that a class has, if classes have shares or calls
//	                                                      have tenants. At its share with calls waiting: it needs more.
//	weir_open                   gauge                     Open calls: they run, wait, or are streams that returned their
//	                                                      permits. Near weir_max_open: the next streams are refused
//	                                                      with too_many_open.
//	weir_max_open               gauge                     The bound of open calls. 0: no bound.
//	weir_send_stalls_total      counter                   Streams that were ended because their clients took no
//	                                                      messages. The clients hang, or work on a message for longer
//	                                                      than the bound.
//	weir_tenants                gauge                     Tenants with calls. With refusals for over_share: a few of
//	                                                      them want more than the others leave.
//	weir_wait_seconds           histogram  result         Waiting time of calls that were "admitted", were "refused"
//	                                                      after a wait, or whose caller "left".
//	weir_running_seconds_total  counter                   Running time of calls. Its rate is the mean number in flight.
//	                                                      Divided by the rate of weir_calls_total, it is the mean time.
//	weir_panics_total           counter                   Panics of hooks and of the algorithm, all survived. Report
//	                                                      them as a bug.
//	weir_draining               gauge                     1 while the gate drains. For long: GracefulStop hangs.
//	weir_dry_run                gauge                     1 while the gate refuses nothing.
//
// weir_wait_seconds is a classic and a native histogram at once. Native buckets have a resolution
// of 10 %. Calls that did not wait are not in it. In a dry run, calls that would have waited are in
// it with 0.
//
// # Streams
//
// A meter counts the streams of one kind, see streamcredit.WithMeter. If both ends of a stream are
// in this process, give each end its own meter. The counts of a stream stay when it has ended. The
// label reason is a [streamcredit.Reason] in lower case.
//
//	name                                 type     labels  what it tells
//	weir_stream_open                     gauge            Open streams. Rises at an equal number of clients: handlers do
//	                                                      not return, or clients do not Close.
//	weir_stream_opened_total             counter          A high rate at a level number: streams break and reopen.
//	weir_stream_sent_elements_total,     counter          Throughput. Sent is 0 while senders starve: the receivers are
//	weir_stream_received_elements_total                   slow. Sent is 0 and none starves: the source is empty.
//	weir_stream_sent_bytes_total,        counter          The same in bytes. Received bytes are counted only if the
//	weir_stream_received_bytes_total                      receiver bounds sizes.
//	weir_stream_sent_controls_total,     counter          Cost of the protocol. Near one for each element: windows of one
//	weir_stream_received_controls_total                   or two. Many received without elements: a peer floods.
//	weir_stream_credit                   gauge            Elements that senders may send at once. 0 with starving
//	                                                      senders: demand is the bottleneck.
//	weir_stream_unbounded_senders        gauge            Senders with unbounded demand. Only HTTP/2 slows them down. They
//	                                                      are not in weir_stream_credit.
//	weir_stream_starved_seconds_total    counter          Its rate is the mean number of senders that wait for demand.
//	                                                      Near weir_stream_open: the receivers are the bottleneck.
//	weir_stream_starving_senders         gauge            Senders that wait for demand. The same ones for long: a consumer
//	                                                      hangs.
//	weir_stream_demand                   gauge            Requested elements that have not arrived. Near the window: the
//	                                                      senders or the network are the bottleneck.
//	weir_stream_window                   gauge            Sum of the windows, and the most elements that receivers hold.
//	                                                      Manual demand has none.
//	weir_stream_lag                      gauge            Elements that arrived and are not consumed. Near the window: the
//	                                                      consumers are the bottleneck.
//	weir_stream_waited_seconds_total     counter          Its rate is the mean number of consumers that wait for elements.
//	                                                      High together with the starved seconds: the window is too small.
//	weir_stream_dropped_elements_total   counter          Elements that outboxes dropped: subscribers are too slow.
//	weir_stream_violations_total         counter  reason  Streams that this end has ended. credit_starved,
//	                                                      first_request_timeout, peer_stalled: a peer hangs.
//	                                                      budget_exhausted: this process is full. Any other: the peer has
//	                                                      a bug or is hostile.
//
// # Pressure
//
// A monitor is a [pressure.Monitor]. A program has one, or a few with different names. The label signal
// is memory, gc, processors, or the name of a signal of the program. Refusals because of pressure count in
// weir_refusals_total of the gates, with a reason that ends in pressure.
//
//	name                                 type     labels  what it tells
//	weir_pressure_ratio                  gauge    signal  Used part of the resource. Rises for hours: a leak. Its slope shows
//	                                                      how long the process has left.
//	weir_pressure_level                  gauge            0 calm, 1 elevated, 2 high, 3 extreme. Not 0: gates refuse classes.
//	weir_pressure_level_changes_total    counter          A high rate: refusals help, but not for long. The process is too
//	                                                      small for its load.
//	weir_pressure_signal_failing         gauge    signal  1 while the last read failed. After a second the signal counts as 0.
//	                                                      For "memory": no memory limit was found.
//	weir_pressure_signal_failures_total  counter  signal  Failed reads.
//	weir_pressure_panics_total           counter          Panics of hooks, all survived.
//
// # Brokers
//
// A meter is a [broker.Meter] with the name of a queue. The label cause is dependency or gate, and end
// is acked, requeued, dead_lettered or lost.
//
//	name                              type     labels  what it tells
//	weir_broker_wanted                gauge            Messages that were asked for and are not settled.
//	weir_broker_held                  gauge            Messages in this process that are not settled. Far below wanted:
//	                                                   the queue is empty. Equal for long: the handlers are slow.
//	weir_broker_running               gauge            Handlers that run.
//	weir_broker_fetched_total         counter          Messages delivered to this process.
//	weir_broker_redelivered_total     counter          Those that were delivered before, as far as the broker counts.
//	weir_broker_settled_total         counter  end     Messages by their end. "lost": the broker took them away, and
//	                                                   may deliver them again.
//	weir_broker_failed_total          counter          Failed attempts of handlers.
//	weir_broker_refused_total         counter          Attempts that ended because something refused work.
//	weir_broker_extended_total        counter          Times that a source asked for more time for a message.
//	weir_broker_errors_total          counter          Errors of fetching, extending and settling.
//	weir_broker_paused                gauge            Consumers that pause, because a dependency or the gate refuses work.
//	weir_broker_pauses_total          counter  cause   Pauses by the origin of the refusal.
//	weir_broker_paused_seconds_total  counter          Time spent in pauses, summed over consumers.
//	weir_broker_panics_total          counter          Panics of handlers, all survived.
//
// # Breakers, throttles and retries
//
// The label target is the canonical form of a connection's target, as "dns:///backend:443". The label
// method is a full method name that this program calls. State is a [breaker.State]. At most 1024
// circuits of a breaker, and 1024 triples of a throttle, are told apart. The rest have the name "*". So a
// breaker has at most 7176 series and a throttle 5126. A program that forwards arbitrary methods reaches
// that number, and its callers choose the labels, so do not collect its breaker. A meter of retries
// has at most 4101 series, and two for each target with an open connection.
//
// weir_breaker_circuits, weir_throttle_targets and weir_retry_methods exist from the first scrape.
// The other series of a circuit or a target begin with its first call, and stay. A budget is shown
// while a connection to its target is open.
//
//	name                                 type     labels                 what it tells
//	weir_breaker_circuits                gauge                           Number of circuits. 1025: the last ones share one.
//	weir_breaker_state                   gauge    target, method, state  1 for the current state, 0 for the others. "open":
//	                                                                     callers get errors at once. It stays "open" until
//	                                                                     the next call. "half-open" for long: the probes
//	                                                                     hang, or are few.
//	weir_breaker_openings_total          counter  target, method         How often the circuit opened, also again after
//	                                                                     failed probes. One in each OpenFor: the method is
//	                                                                     down. Now and then: the configuration is too eager.
//	weir_breaker_allowed_calls_total     counter  target, method         Sent calls.
//	weir_breaker_refused_calls_total     counter  target, method         Calls that were refused here. The failures just
//	                                                                     before show the cause.
//	weir_breaker_failed_calls_total      counter  target, method         Failed calls, slow ones included. By the allowed
//	                                                                     calls it is the ratio that FailureRatio bounds.
//	weir_throttle_targets                gauge                           Number of triples. 1025: the last ones share one.
//	weir_throttle_probability            gauge    target, method, class  Probability of a refusal. Not 0: the target accepts
//	                                                                     less than one call in K. Near 1 for long: it is
//	                                                                     down, or refuses everything.
//	weir_throttle_accepted_calls_total,  counter  target, method, class  Sent calls that the target accepted, and that it
//	weir_throttle_rejected_calls_total                                   refused.
//	weir_throttle_allowed_calls_total    counter  target, method, class  Sent calls.
//	weir_throttle_refused_calls_total    counter  target, method, class  Calls that were refused here: the load that the
//	                                                                     throttle keeps away.
//	weir_retry_methods                   gauge                           Number of pairs. 1025: the last ones share one.
//	weir_retry_calls_total               counter  target, method         Calls that gRPC began to send.
//	weir_retry_retries_total             counter  target, method         Attempts after the first ones. By the calls it is
//	                                                                     the extra load of retries.
//	weir_retry_transparent_total         counter  target, method         Attempts instead of one that no server had seen.
//	                                                                     A high rate: connections break.
//	weir_retry_withheld_total            counter  target, method         Calls that were not sent again, because the budget
//	                                                                     was used up. The target fails for most calls.
//	weir_retry_budget_tokens             gauge    target                 Estimate of the tokens that are left. Falling:
//	                                                                     calls fail faster than successes refill it.
//	weir_retry_budget_max_tokens         gauge    target                 The most tokens. At half of it retries stop.
package metrics
