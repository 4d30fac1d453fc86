// Package gates assigns the calls of a server to several gates.
//
// Calls that use different resources want a gate each. Behind one gate, the slow ones take the
// permits of the quick ones. For a server with one bottleneck, the Gate and Streams of
// interceptors.ServerConfig are enough.
//
//	rules, err := gates.FromJSON(document)
//	...
//	options, err := interceptors.Server(interceptors.ServerConfig{Gates: rules})
//
// A [Rule] names a gate and its calls, and [Rules] are all of them. The order matters, because
// the first rule that matches decides. [FromJSON] makes the gates of a document, and
// [Rules.Update] changes them while calls run.
package gates
