package redis

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Sweep deletes the names of consumers without entries that were idle for some time.
func Sweep(ctx context.Context, c *goredis.Client, stream, group string, idle time.Duration) error {
	return sweepScript.Run(ctx, c, []string{stream}, group, prefix, idle.Milliseconds()).Err()
}
