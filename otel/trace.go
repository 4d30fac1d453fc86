package otel

import (
	"context"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/internal/check"
)

// Trace adds events to the spans of the calls that come to the gates. A call that was admitted after a wait gets
// weir.wait, a refused call weir.refused, and a call that its caller gave up while it waited weir.left. The span is the
// one in the context of Acquire, which is that of the RPC if the tracing of gRPC stands outside of the gate. A call
// without a recorded span costs a look at its context. Trace adds hooks to each gate, which cannot be removed, so
// call it once for a gate. The error wraps [ErrConfig] and names every gate that is nil or zero.
func Trace(gates ...*admit.Gate) error {
	var bad check.Errors
	bad.That(len(gates) > 0, "gates: got none, want at least one")
	for i, g := range gates {
		place := fmt.Sprintf("gate %d of %d", i+1, len(gates))
		if g == nil {
			bad.That(false, "%s: got nil, want one from admit.New", place)
			continue
		}
		bad.From(place, g.Update(admit.WithHooks(eventHooks(g.Name()))), admit.ErrConfig)
	}
	return bad.Err(ErrConfig)
}

func eventHooks(gate string) admit.Hooks {
	return admit.Hooks{
		Waited: func(ctx context.Context, _ admit.Call, wait time.Duration) {
			event(ctx, "weir.wait", wait, attribute.String("weir.gate", gate))
		},
		Refused: func(ctx context.Context, _ admit.Call, why admit.Reason, wait time.Duration) {
			event(ctx, "weir.refused", wait, attribute.String("weir.gate", gate), attribute.String("weir.reason", why.String()))
		},
		Left: func(ctx context.Context, _ admit.Call, wait time.Duration, _ error) {
			event(ctx, "weir.left", wait, attribute.String("weir.gate", gate))
		},
	}
}

// StarvedEvent adds the event weir.stream.starved to the span of a sender that waited for credit. Give it to
// streamcredit.WithOnStarved.
func StarvedEvent(ctx context.Context, wait time.Duration) { event(ctx, "weir.stream.starved", wait) }

// event adds an event to the span of a context. The attribute weir.wait is in seconds.
func event(ctx context.Context, name string, wait time.Duration, more ...attribute.KeyValue) {
	span := trace.SpanFromContext(ctx)
	if !span.IsRecording() {
		return
	}
	span.AddEvent(name, trace.WithAttributes(append(more, attribute.Float64("weir.wait", wait.Seconds()))...))
}
