package rabbitmq_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq"
)

// A user that may not read the queue for a while goes on when it may again. The consumer
// that runs already is not asked.
func TestPermissionIsRevoked(t *testing.T) {
	each(t, func(t *testing.T, s *server, queue string) {
		may := func(read string) {
			s.eval(t, fmt.Sprintf(`rabbit_auth_backend_internal:set_permissions(<<"guest">>, <<"/">>, <<".*">>, <<".*">>, <<%q>>, <<"test">>).`, read))
		}
		refused := make(chan error, 100)
		source, err := rabbitmq.Open(t.Context(), rabbitmq.Config{
			URLs: []string{s.url(s.count.Addr())}, Queue: queue, Source: broker.SourceConfig{OnError: func(err error) {
				if strings.Contains(err.Error(), "ACCESS_REFUSED") {
					refused <- err
				}
			}},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { shut(t, source) })
		mustPublish(t, s, queue, numbered(4)...)
		source.Request(2)
		held := next(t, source)
		source.Request(3)
		may("^$")
		t.Cleanup(func() { may(".*") })
		ack(t, held)
		s.count.Cut()
		select {
		case err := <-refused:
			if !strings.Contains(err.Error(), queue) {
				t.Errorf("OnError got %v, want it to name the queue %s", err, queue)
			}
		case <-time.After(patience):
			t.Fatal("OnError got no refusal")
		}
		may(".*")
		seen := map[string]bool{}
		for len(seen) < 3 {
			m := next(t, source)
			switch err := m.Ack(t.Context()); {
			case err == nil:
				seen[string(m.Body)] = true
			case !errors.Is(err, broker.ErrSettled):
				t.Fatal(err)
			}
			source.Request(1)
		}
	})
}
