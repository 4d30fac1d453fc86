package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/weir-go/weir/broker"
)

// OpenFlushed is Open, and also returns a function that commits at once.
func OpenFlushed(config Config, opts ...kgo.Opt) (source broker.Source, flush func(context.Context) error, err error) {
	c, source, err := open(config, opts)
	if err != nil {
		return nil, nil, err
	}
	return source, func(ctx context.Context) error { return c.commit(ctx, nil) }, nil
}
