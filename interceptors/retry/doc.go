// Package retry makes gRPC's own retry policy for a client, and finds a second layer of
// retries above it.
//
// gRPC retries a call itself if its service config says so. It then obeys the delay that a
// server asks for, and it keeps a budget, so that retries do not multiply an overload. Use
// [Config] to write that service config. Do not use it together with an interceptor that
// retries, such as go-grpc-middleware's. Two layers of three attempts each make nine.
// [UnaryGuard] and [StreamGuard] report such a pair, and stop it.
//
//	options, err := interceptors.Client(interceptors.ClientConfig{Retry: &retry.Config{}})
//	...
//	conn, err := grpc.NewClient(target, options...)
//
// Without [interceptors.Client], use [DialOption], or [Config.ServiceConfig] for a service
// config as JSON.
//
// On a server, [PreviousAttempts] tells how often the client has tried a call before.
//
// [interceptors.Client]: https://pkg.go.dev/github.com/weir-go/weir/interceptors#Client
package retry
