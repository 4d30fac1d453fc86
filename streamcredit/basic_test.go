package streamcredit_test

import (
	"testing"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

func TestASubscription(t *testing.T) {
	for name, opt := range map[string]streamcredit.ReceiveOption{
		"window 1":  streamcredit.WithWindow(1),
		"window 2":  streamcredit.WithWindow(2),
		"window 7":  streamcredit.WithWindow(7),
		"window 64": streamcredit.WithWindow(64),
		"automatic": streamcredit.WithAutoWindow(streamcredit.AutoWindow{}),
	} {
		t.Run(name, func(t *testing.T) {
			client := handlers{subscribe: func(stream subscribeServer) error {
				out, query, err := streamcredit.ServeSend(stream)
				if err != nil {
					return err
				}
				for i := range query.GetCount() {
					if err := out.Send(stream.Context(), event(int(i)+1)); err != nil {
						return err
					}
				}
				return out.Finish(stream.Context())
			}}.start(t)

			in, err := streamcredit.DialReceive(t.Context(), client.Subscribe, opt,
				streamcredit.WithSetup(&demopb.SubscribeRequest{Count: 1000}))
			if err != nil {
				t.Fatal(err)
			}
			want := int64(0)
			for e, err := range in.All(t.Context()) {
				if err != nil {
					t.Fatalf("All = %v, want no error", err)
				}
				if want++; e.GetNumber() != want {
					t.Fatalf("element %d, want %d", e.GetNumber(), want)
				}
			}
			if want != 1000 {
				t.Errorf("elements = %d, want 1000", want)
			}
			if err := in.Close(); err != nil {
				t.Errorf("Close = %v, want no error", err)
			}
		})
	}
}
