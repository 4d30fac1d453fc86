package interceptors_test

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
)

// A permit is given back once if a set-up ends from several goroutines just when the handler returns, panics or
// calls runtime.Goexit.
func TestASetupEndsBesideItsHandler(t *testing.T) {
	for name, end := range map[string]func(){
		"return": func() {}, "late return": runtime.Gosched, "panic": func() { panic("the handler") }, "Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rounds = 500
				g := newGate(t, admit.WithLimit(fixed(2)), admit.WithoutQueue(), admit.WithMaxOpen(2))
				server := interceptors.StreamServer(g, interceptors.WithStreams(
					interceptors.StreamRule{ReadyAtFirstMessage: true, ReadyAfter: time.Microsecond}, nil))
				handler := func(_ any, s grpc.ServerStream) error {
					var all sync.WaitGroup
					for range 2 {
						all.Go(func() { interceptors.StreamReady(s.Context()) })
						all.Go(func() { _ = s.SendMsg(&wrapperspb.BytesValue{}) })
					}
					go func() { // outlives the handler
						all.Wait()
						interceptors.StreamReady(s.Context())
						_ = s.SendMsg(&wrapperspb.BytesValue{})
					}()
					time.Sleep(time.Microsecond) // until After
					end()
					return nil
				}
				for range rounds {
					go func() {
						defer func() { _ = recover() }()
						stream := &choosy{serverStream: serverStream{ctx: t.Context()}}
						_ = server(nil, stream, &grpc.StreamServerInfo{FullMethod: downMethod}, handler)
					}()
					time.Sleep(time.Hour)
				}
				if s := g.Stats(); s.InFlight != 0 || s.Ready != 0 || s.Ended[0]+s.Ended[1]+s.Ended[2] != rounds {
					t.Errorf("in flight, ready, ended: got %d, %d, %v; want none, none and %d in total", s.InFlight, s.Ready, s.Ended, rounds)
				}
			})
		})
	}
}
