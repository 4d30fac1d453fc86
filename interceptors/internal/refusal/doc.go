// Package refusal makes every status of a call that the interceptors end, and recognises such
// a status again.
//
// [Maker] makes the errors of gates, and [Delayed] makes the errors of breakers and
// throttles. [From] reads a refusal from any error. [Full], [FromWeir], [FromGRPC] and
// [Unreached] classify the status of a call that ended.
package refusal
