package main

// A row is a part of the dashboard.
type row struct {
	title  string
	panels []panel
}

// A panel shows one question and its answer.
type panel struct {
	title string
	tells string // how to read it
	unit  string // Grafana's name of it
	// queries are PromQL. $__rate_interval is Grafana's, $job is the variable of this dashboard.
	queries []query
}

type query struct{ expr, legend string }

var rows = []row{
	{"Lost work", []panel{
		{
			"Refused, as a part of all calls", "The alerts on the error budget look at this. Quotas and shutdowns are left out.", "percentunit",
			[]query{{`sum by (job, gate) (rate(weir_refusals_total{job=~"$job", reason!~"draining|over_quota"}[$__rate_interval]))
  / (sum by (job, gate) (rate(weir_refusals_total{job=~"$job"}[$__rate_interval]))
    + sum by (job, gate) (rate(weir_calls_total{job=~"$job"}[$__rate_interval]))
    + sum by (job, gate) (rate(weir_left_total{job=~"$job"}[$__rate_interval])))`, "{{job}} {{gate}}"}},
		},
		{
			"Refusals by class and reason", "If critical calls are refused, shedding the rest was not enough.", "reqps",
			[]query{{`sum by (gate, class, reason) (rate(weir_refusals_total{job=~"$job"}[$__rate_interval])) > 0`, "{{gate}} {{class}} {{reason}}"}},
		},
		{
			"Calls by outcome", "Goodput is success. If overload grows, a service behind this one is too busy.", "reqps",
			[]query{{`sum by (gate, outcome) (rate(weir_calls_total{job=~"$job"}[$__rate_interval]))`, "{{gate}} {{outcome}}"}},
		},
		{
			"Callers that gave up, and streams ended for a stall", "Deadlines are shorter than the queue, or clients do not read.", "reqps",
			[]query{
				{`sum by (gate) (rate(weir_left_total{job=~"$job"}[$__rate_interval]))`, "{{gate}} left"},
				{`sum by (gate) (rate(weir_send_stalls_total{job=~"$job"}[$__rate_interval]))`, "{{gate}} stalled"},
			},
		},
	}},
	{"Gates", []panel{
		{
			"Limit and calls in flight", "A limit that falls at equal traffic: calls take longer.", "short",
			[]query{
				{`sum by (job, gate) (weir_limit{job=~"$job"})`, "{{job}} {{gate}} limit"},
				{`sum by (job, gate) (weir_in_flight{job=~"$job"})`, "{{job}} {{gate}} in flight"},
			},
		},
		{
			"Utilization of the fullest instance", "Near 1 for long: the next burst is refused.", "percentunit",
			[]query{{`max by (job, gate) (weir_utilization_ratio{job=~"$job"})`, "{{job}} {{gate}}"}},
		},
		{
			"Waiting calls by class", "A queue that is always full adds only delay.", "short",
			[]query{
				{`sum by (gate, class) (weir_class_waiting{job=~"$job"}) > 0`, "{{gate}} {{class}}"},
				{`sum by (gate) (weir_queue_capacity{job=~"$job"})`, "{{gate}} places"},
			},
		},
		{
			"Wait, 99th percentile", "Of the calls that had to wait, by how the wait ended.", "s",
			[]query{{`histogram_quantile(0.99, sum by (gate, result, le) (rate(weir_wait_seconds_bucket{job=~"$job"}[$__rate_interval])))
or histogram_quantile(0.99, sum by (gate, result) (rate(weir_wait_seconds{job=~"$job"}[$__rate_interval])))`, "{{gate}} {{result}}"}},
		},
		{
			"Mean running time of calls", "Latency without the wait. It rises first when a dependency becomes slow.", "s",
			[]query{{`sum by (job, gate) (rate(weir_running_seconds_total{job=~"$job"}[$__rate_interval]))
  / sum by (job, gate) (rate(weir_calls_total{job=~"$job"}[$__rate_interval]))`, "{{job}} {{gate}}"}},
		},
		{
			"Open calls, tenants, permits by class", "Open calls near their bound: new streams are refused.", "short",
			[]query{
				{`sum by (gate) (weir_open{job=~"$job"})`, "{{gate}} open"},
				{`sum by (gate) (weir_max_open{job=~"$job"}) > 0`, "{{gate}} bound of open"},
				{`sum by (gate) (weir_tenants{job=~"$job"})`, "{{gate}} tenants"},
				{`sum by (gate, class) (weir_class_permits{job=~"$job"}) > 0`, "{{gate}} {{class}} permits"},
			},
		},
		{
			"Changes of the limit, panics", "No change for hours under load: the limit is fixed, or gets no samples. A panic is a bug.", "short",
			[]query{
				{`sum by (gate) (rate(weir_limit_changes_total{job=~"$job"}[$__rate_interval]))`, "{{gate}} changes a second"},
				{`sum by (gate) (weir_panics_total{job=~"$job"})`, "{{gate}} panics"},
			},
		},
		{
			"Dry run and drain", "A gate in a dry run refuses nothing. One that drains for long hangs in its shutdown.", "short",
			[]query{
				{`sum by (gate) (weir_dry_run{job=~"$job"})`, "{{gate}} dry run"},
				{`sum by (gate) (weir_draining{job=~"$job"})`, "{{gate}} draining"},
			},
		},
	}},
	{"Pressure", []panel{
		{
			"Used part of each resource", "Memory that rises for hours is a leak.", "percentunit",
			[]query{{`max by (job, instance, signal) (weir_pressure_ratio{job=~"$job"})`, "{{instance}} {{signal}}"}},
		},
		{
			"Level", "0 calm, 1 elevated, 2 high, 3 extreme. Above 0 gates refuse classes.", "short",
			[]query{
				{`max by (job, instance) (weir_pressure_level{job=~"$job"})`, "{{instance}} level"},
				{`sum by (instance, signal) (weir_pressure_signal_failing{job=~"$job"}) > 0`, "{{instance}} {{signal}} fails"},
			},
		},
	}},
	{"Streams", []panel{
		{
			"Elements sent and received", "Sent is 0 while senders starve: the receivers are slow.", "cps",
			[]query{
				{`sum by (meter) (rate(weir_stream_sent_elements_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} sent"},
				{`sum by (meter) (rate(weir_stream_received_elements_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} received"},
			},
		},
		{
			"Who waits for whom", "The mean number of senders that wait for demand, and of consumers that wait for elements.", "short",
			[]query{
				{`sum by (meter) (rate(weir_stream_starved_seconds_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} senders wait"},
				{`sum by (meter) (rate(weir_stream_waited_seconds_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} consumers wait"},
				{`sum by (meter) (weir_stream_open{job=~"$job"})`, "{{meter}} open"},
			},
		},
		{
			"Window, demand, lag, credit", "Lag near the window: the consumers are the bottleneck.", "short",
			[]query{
				{`sum by (meter) (weir_stream_window{job=~"$job"})`, "{{meter}} window"},
				{`sum by (meter) (weir_stream_demand{job=~"$job"})`, "{{meter}} demand"},
				{`sum by (meter) (weir_stream_lag{job=~"$job"})`, "{{meter}} lag"},
				{`sum by (meter) (weir_stream_credit{job=~"$job"})`, "{{meter}} credit"},
			},
		},
		{
			"Dropped elements and violations", "Outboxes drop when subscribers are slow. Violations end a stream.", "cps",
			[]query{
				{`sum by (meter) (rate(weir_stream_dropped_elements_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} dropped"},
				{`sum by (meter, reason) (rate(weir_stream_violations_total{job=~"$job"}[$__rate_interval])) > 0`, "{{meter}} {{reason}}"},
			},
		},
	}},
	{"Clients", []panel{
		{
			"Circuits that are not closed", "Open: calls fail at once. Half-open: some calls test the target.", "short",
			[]query{{`sum by (breaker, target, method, state) (weir_breaker_state{job=~"$job", state=~"open|half-open"}) > 0`, "{{target}} {{method}} {{state}}"}},
		},
		{
			"Failed calls of a target, as a part of the sent ones", "The circuit opens above its failure ratio.", "percentunit",
			[]query{{`sum by (target, method) (rate(weir_breaker_failed_calls_total{job=~"$job"}[$__rate_interval]))
  / sum by (target, method) (rate(weir_breaker_allowed_calls_total{job=~"$job"}[$__rate_interval]))`, "{{target}} {{method}}"}},
		},
		{
			"Calls that clients refused themselves", "By circuit and by throttle: the load that they keep away from the target.", "reqps",
			[]query{
				{`sum by (target) (rate(weir_breaker_refused_calls_total{job=~"$job"}[$__rate_interval]))`, "{{target}} circuit"},
				{`sum by (target) (rate(weir_throttle_refused_calls_total{job=~"$job"}[$__rate_interval]))`, "{{target}} throttle"},
			},
		},
		{
			"Calls that targets accepted and rejected", "Near all rejected for long: the target is down.", "reqps",
			[]query{
				{`sum by (target) (rate(weir_throttle_accepted_calls_total{job=~"$job"}[$__rate_interval]))`, "{{target}} accepted"},
				{`sum by (target) (rate(weir_throttle_rejected_calls_total{job=~"$job"}[$__rate_interval]))`, "{{target}} rejected"},
				{`max by (target) (weir_throttle_probability{job=~"$job"})`, "{{target}} probability of a refusal"},
			},
		},
	}},
	{"Brokers", []panel{
		{
			"Messages fetched and settled", "Fetched and acknowledged should be equal. Dead letters need a person.", "cps",
			[]query{
				{`sum by (meter) (rate(weir_broker_fetched_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} fetched"},
				{`sum by (meter, end) (rate(weir_broker_settled_total{job=~"$job"}[$__rate_interval]))`, "{{meter}} {{end}}"},
			},
		},
		{
			"Messages held, handlers that run, pauses", "A consumer pauses while something refuses work.", "short",
			[]query{
				{`sum by (meter) (weir_broker_held{job=~"$job"})`, "{{meter}} held"},
				{`sum by (meter) (weir_broker_running{job=~"$job"})`, "{{meter}} running"},
				{`sum by (meter) (weir_broker_paused{job=~"$job"})`, "{{meter}} paused"},
				{`sum by (meter, cause) (rate(weir_broker_pauses_total{job=~"$job"}[$__rate_interval])) > 0`, "{{meter}} pauses because of {{cause}}"},
			},
		},
	}},
}
