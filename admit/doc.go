// Package admit decides which calls run. A [Gate] hands out permits up to a limit, lets a
// bounded number of calls wait, and refuses the rest at once.
//
// Most services use it through package interceptors, which asks the gate about every gRPC
// call and turns refusals into statuses. Anything else that needs a bound asks the gate
// itself:
//
//	gate, err := admit.New(admit.WithFixedLimit(20))
//	if err != nil {
//		return err
//	}
//	permit, err := gate.Acquire(ctx, admit.Call{})
//	if err != nil {
//		return err // a *admit.Refusal, or the error of ctx
//	}
//	outcome := admit.Ignored
//	defer func() { permit.Release(outcome) }()
//
// The limit is an algorithm of package limit. By default it adapts to the latencies and
// the outcomes of the calls. Calls may have a [Class], which has a priority and may have
// a guaranteed share, and a tenant. Tenants of a class get equal parts of it. [QuotaConfig]
// bounds calls per second in addition.
//
// Do not use a gate to bound memory or bytes. It counts calls and their costs.
package admit
