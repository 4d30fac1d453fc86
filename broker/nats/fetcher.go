package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-go/weir/broker"
)

const (
	// pullExpires is how long the server keeps a pull request.
	pullExpires = 30 * time.Second
	// pullHeartbeat is the time between two signs of life while pull requests wait. After
	// twice that time they are taken for lost.
	pullHeartbeat = 5 * time.Second
	// reconnectWithin is how long Fetch waits for a connection before it reports an error.
	reconnectWithin = time.Second
	// drainWithin bounds the wait for messages that are on their way when the source ends.
	drainWithin = 2 * time.Second
)

// A fetcher sends pull requests for the demand. Requests stay at the server when Fetch
// returns with fewer messages, and the next Fetch asks only for the difference. So an
// empty queue costs one request for pullExpires, and no message waits for a round trip.
type fetcher struct {
	js      jetstream.JetStream
	link    *link
	config  Config
	subject string // of pull requests
	batch   int    // bound of one pull request, 0 for none
	expires time.Duration
	pending int // MaxAckPending
	status  chan nats.Status
	warned  bool // of a demand above MaxAckPending
	down    bool // the connection was lost, and Fetch has said so

	mu      sync.Mutex // guards the fields below
	inbox   *inbox     // nil before the first pull request and after they were lost
	arrived []*nats.Msg
	wake    chan struct{} // holds an element after a change
}

var _ broker.Fetcher = (*fetcher)(nil)

func newFetcher(js jetstream.JetStream, c Config, is jetstream.ConsumerConfig) *fetcher {
	prefix := js.Options().APIPrefix
	if prefix == "" {
		prefix = jetstream.DefaultAPIPrefix
	}
	f := &fetcher{
		js:      js,
		link:    newLink(js.Conn()),
		config:  c,
		subject: fmt.Sprintf("%sCONSUMER.MSG.NEXT.%s.%s", prefix, c.Stream, c.Consumer),
		batch:   is.MaxRequestBatch,
		expires: pullExpires,
		pending: is.MaxAckPending,
		status:  js.Conn().StatusChanged(),
		wake:    make(chan struct{}, 1),
	}
	if is.MaxRequestExpires > 0 {
		f.expires = min(f.expires, is.MaxRequestExpires)
	}
	return f
}

// heartbeat returns the time between two signs of life, at most half of a request's.
func (f *fetcher) heartbeat() time.Duration { return min(pullHeartbeat, f.expires/2) }

// Fetch implements broker.Fetcher.
func (f *fetcher) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	if f.pending > 0 && n > f.pending && !f.warned {
		f.warned = true
		return nil, fmt.Errorf(
			"nats: demand of %d for consumer %q of stream %q, whose MaxAckPending of %d lets the server deliver less",
			n, f.config.Consumer, f.config.Stream, f.pending)
	}
	if err := f.connected(ctx); err != nil {
		return nil, err
	}
	for {
		msgs, err := f.step(n)
		if errors.Is(err, nats.ErrNoResponders) {
			err = f.diagnose(ctx, err)
		}
		if len(msgs) > 0 || err != nil {
			return msgs, err
		}
		select {
		case <-f.wake:
		case <-f.status:
			if err := f.connected(ctx); err != nil {
				return nil, err
			}
		case <-time.After(f.silence()):
			f.dropSilent(ctx)
		case <-ctx.Done():
			return f.drain(), nil
		}
	}
}

// connected waits until there is a connection. It returns one error for each loss, so that
// no delay follows a long one.
func (f *fetcher) connected(ctx context.Context) error {
	nc := f.js.Conn()
	var late <-chan time.Time
	if !f.down {
		late = time.After(reconnectWithin)
	}
	for {
		switch {
		case nc.IsClosed():
			return fmt.Errorf("%w: nats: %w", broker.ErrPermanent, f.link.because(nats.ErrConnectionClosed))
		case nc.IsConnected():
			f.down = false
			return nil
		}
		select {
		case <-f.status:
		case <-late:
			f.down = true
			return fmt.Errorf("nats: no connection to the server: %w", f.link.because(nats.ErrDisconnected))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// diagnose returns a permanent error if the consumer does not exist, and err otherwise. A
// consumer that has no leader for a moment exists.
func (f *fetcher) diagnose(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, lookup := f.js.Consumer(ctx, f.config.Stream, f.config.Consumer)
	if errors.Is(lookup, jetstream.ErrConsumerNotFound) || errors.Is(lookup, jetstream.ErrStreamNotFound) {
		return f.gone()
	}
	return err
}

// step takes messages that have arrived. If there are none, it asks for the missing ones.
func (f *fetcher) step(n int) ([]*broker.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if msgs, err := f.takeLocked(n); len(msgs) > 0 || err != nil {
		return msgs, err
	}
	in := f.inbox
	if in != nil {
		if err := in.failed; err != nil {
			f.dropLocked()
			return nil, err
		}
		if in.reconnects != f.js.Conn().Stats().Reconnects {
			f.dropLocked() // the server has forgotten the requests of the last connection
			in = nil
		}
	}
	if in == nil {
		var err error
		if in, err = f.openLocked(); err != nil {
			return nil, err
		}
	}
	// While at least half of the demand is at the server, more requests would be small
	// and many.
	if in.wanted > n/2 {
		return nil, nil
	}
	return nil, f.pullLocked(in, n-in.wanted)
}

func (f *fetcher) takeLocked(n int) (msgs []*broker.Message, err error) {
	for len(f.arrived) > 0 && len(msgs) < n {
		m, bad := f.newMessage(f.arrived[0])
		f.arrived[0] = nil
		f.arrived = f.arrived[1:]
		if bad != nil {
			err = errors.Join(err, bad)
			continue
		}
		msgs = append(msgs, m)
	}
	return msgs, err
}

// pullLocked asks the server for n more messages.
func (f *fetcher) pullLocked(in *inbox, n int) error {
	if f.batch > 0 {
		n = min(n, f.batch)
	}
	request, err := json.Marshal(struct {
		Expires   time.Duration `json:"expires"`
		Batch     int           `json:"batch"`
		Heartbeat time.Duration `json:"idle_heartbeat"`
	}{f.expires, n, f.heartbeat()})
	if err != nil {
		return err
	}
	if err := f.js.Conn().PublishRequest(f.subject, in.sub.Subject, request); err != nil {
		return fmt.Errorf("nats: pull request: %w", err)
	}
	in.wanted += n
	in.heard = time.Now()
	return nil
}

// silence returns how long the server may remain silent from now on.
func (f *fetcher) silence() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.inbox == nil {
		return 0
	}
	return max(0, time.Until(f.inbox.heard.Add(2*f.heartbeat())))
}

// dropSilent gives up the pull requests if the server does not show that it has them, and
// the connection if the server does not answer at all.
func (f *fetcher) dropSilent(ctx context.Context) {
	if f.silence() > 0 {
		return
	}
	connection := "answers"
	if !f.link.answers(ctx) {
		connection = "is given up"
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if in := f.inbox; in != nil && in.failed == nil && time.Since(in.heard) >= 2*f.heartbeat() {
		in.failed = f.link.because(fmt.Errorf(
			"nats: no sign of life from consumer %q of stream %q for %v, and the connection %s; asking again",
			f.config.Consumer, f.config.Stream, 2*f.heartbeat(), connection))
		signal(f.wake)
	}
}

// signal puts an element into a channel that holds one, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
