// Package admit decides who may run: a [Gate] hands out permits up to a limit,
// lets a bounded number of callers wait, and refuses the rest at once.
//
// All locking and waiting of the call path is here. Package limit decides how
// many permits there are; package interceptors brings calls and turns refusals
// into gRPC statuses.
package admit
