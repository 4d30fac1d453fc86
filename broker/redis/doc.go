// Package redis is a source of messages from a Redis stream, read by a consumer group. It
// needs Redis 6.2 or newer, alone, with sentinels or as a cluster.
//
// The source reads with XREADGROUP, never more entries than were requested, and takes over
// the entries of consumers that died. XACK follows when a message was consumed.
//
//	source, err := redis.Open(redis.Config{
//		Redis:       goredis.UniversalOptions{Addrs: []string{"localhost:6379"}},
//		Stream:      "jobs",
//		Group:       "workers",
//		DeadLetters: "jobs.dead",
//	})
//
// The consumer "weir-given-back" of the group owns the entries that were requeued or given
// back. They are not in work. The next consumer with demand takes them over.
package redis
