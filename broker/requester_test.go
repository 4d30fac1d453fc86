package broker_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/weir-go/weir/broker"
)

// A requester notes the demand that it is told of.
type requester struct{ told atomic.Int64 }

func (r *requester) Request(n int) { r.told.Add(int64(n)) }

func (*requester) Fetch(ctx context.Context, _ int) ([]*broker.Message, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*requester) Close(context.Context) error { return nil }

func TestRequesterIsToldAtOnce(t *testing.T) {
	var r requester
	source, err := broker.NewSource(&r, broker.SourceConfig{})
	if err != nil {
		t.Fatal(err)
	}
	want := int64(0)
	for _, n := range []int{1, 3, 0, -2, 5} {
		source.Request(n)
		want += int64(max(n, 0))
		if got := r.told.Load(); got != want {
			t.Errorf("after Request(%d) the fetcher knows of %d, want %d", n, got, want)
		}
	}
	if err := source.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	source.Request(1)
	if got := r.told.Load(); got != want {
		t.Errorf("after Close the fetcher was told of %d, want %d as before", got, want)
	}
}
