// Package debug shows the state of gates, clients, streams and pressure to people on call.
//
// Mount a [Handler] on a mux of your choice, behind the authentication of your other admin pages.
// It serves one page that updates itself, the same as JSON, and nothing else. It changes nothing.
// [Register] offers the same content by gRPC.
//
//	page, err := debug.NewHandler(gate, meter)
//	if err != nil {
//		return err
//	}
//	admin.Handle("/debug/weir", page) // an http.ServeMux that only operators reach
//	debug.Register(server, page)      // optional, for grpcurl
//
// # Concepts
//
// A [Source] is a gate, a breaker, a throttle, a meter of retries, of streams or of a broker, a
// monitor of pressure, or a [Describer]. A snapshot of all sources begins with findings, which name the
// troubles in words, the worst first. Package debugpb (proto/weir/debug/v1) describes the
// content. A snapshot serves all viewers for half a second.
//
// Without viewers weir records only the changes of limits, a sample of refusals, and five
// minutes of numbers every five seconds. A look makes the gates list their running calls as
// well, until a minute after the last look. Calls that began while nobody looked are counted and
// not listed, because a list of them would cost every call. Their methods are not known here. A
// goroutine dump (package net/http/pprof) shows where they are.
//
// The page shows names of methods and tenants, and addresses. It shows no payload and no
// metadata. Tenants are hashed with a secret of the Handler, unless [Handler.ShowTenantNames] is called.
//
// Do not use it for alerts, because nothing is kept when the process ends. Package metrics is
// for alerts.
package debug
