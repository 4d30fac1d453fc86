package redis_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/weir-go/weir/broker"
)

// TestPermissionIsRevoked checks that a user who may not read and acknowledge for a while
// goes on when it may again, and that the errors say what is missing.
func TestPermissionIsRevoked(t *testing.T) {
	s := sharedServer(t)
	may := func(rules ...any) {
		t.Helper()
		do(t, s.client.Do(context.Background(), append([]any{"ACL", "SETUSER", "worker", "on", ">w", "~*"}, rules...)...).Err())
	}
	may("+@all")
	t.Cleanup(func() { do(t, s.client.Do(context.Background(), "ACL", "DELUSER", "worker").Err()) })
	var mu sync.Mutex
	var told []string
	conf := config(s.addr, "s")
	conf.Redis.Username, conf.Redis.Password = "worker", "w"
	conf.Source.OnError = func(err error) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, err.Error())
	}
	source := open(t, conf)
	s.add(t, "s", "a", "b", "c", "d")
	held := take(t, source, 2)
	may("-xreadgroup", "-xack", "-eval", "-evalsha")
	for name, settle := range map[string]func() error{
		"Ack":    func() error { return held[0].Ack(t.Context()) },
		"Nack":   func() error { return held[1].Nack(t.Context(), broker.Requeue()) },
		"Extend": func() error { return held[1].Extend(t.Context()) },
	} {
		if err := settle(); err == nil || errors.Is(err, broker.ErrSettled) || !strings.Contains(err.Error(), "NOPERM") || !strings.Contains(err.Error(), `stream "s"`) {
			t.Errorf("%s without permission: got %v, want an error that says NOPERM and names the stream", name, err)
		}
	}
	source.Request(2)
	await(t, "the source tells that it may not read", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.ContainsFunc(told, func(text string) bool { return strings.Contains(text, `stream "s": NOPERM`) })
	})
	may("+@all")
	for _, m := range append(held, next(t, source), next(t, source)) {
		do(t, m.Ack(t.Context()))
	}
	wantPending(t, s, "s")
}
