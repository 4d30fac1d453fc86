// Package brokertest checks that a [broker.Source] keeps its promises with a real broker,
// and has a broker in memory for the tests of a service.
//
// The suite trusts the broker, not the adapter. It publishes to the broker, consumes through
// the Source, and then asks the broker which messages are ready, unacknowledged and set
// aside. Between the Source and the broker stands a [Proxy], which counts the requests and
// breaks connections. To kill a consumer, the suite runs the test binary a second time, as
// a consumer, and kills that process.
//
// The test of an adapter describes its broker in a [Broker] and calls [Run]:
//
//	func TestConformance(t *testing.T) {
//		brokertest.Run(t, brokertest.Broker{
//			Start: func(t testing.TB) brokertest.Server { return startServer(t) },
//			Open: func(ctx context.Context, c brokertest.Consumer) (broker.Source, error) {
//				return nats.Open(ctx, nats.Config{Address: c.Addr, Stream: c.Queue})
//			},
//			AckTimeout: time.Second,
//			Without: map[string]string{
//				"restart": "the server of the tests keeps nothing on disk",
//			},
//		})
//	}
//
// [Checks] lists the checks with the promise that each one tests. The suite needs real time
// and real connections, so it cannot run in a bubble of testing/synctest. [Memory] can.
package brokertest
