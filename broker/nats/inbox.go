package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-go/weir/broker"
)

// An inbox is the subscription to which the server sends the messages of pull requests.
// Requests that are lost get a new one, so that late answers to the old requests cannot be
// taken for answers to the new ones. The fetcher's mutex guards the fields.
type inbox struct {
	f          *fetcher
	sub        *nats.Subscription
	closed     chan struct{} // closed when the subscription has ended
	reconnects uint64        // of the connection when the inbox was opened
	wanted     int           // asked for, and neither arrived nor expired
	heard      time.Time     // of the last sign of life
	failed     error
}

// openLocked subscribes to a new inbox.
func (f *fetcher) openLocked() (*inbox, error) {
	nc := f.js.Conn()
	in := &inbox{f: f, closed: make(chan struct{}), reconnects: nc.Stats().Reconnects}
	sub, err := nc.Subscribe(nc.NewInbox(), in.receive)
	if err != nil {
		return nil, fmt.Errorf("nats: inbox for messages: %w", err)
	}
	// The demand bounds the buffer. The default of 64 MiB could be less than that, and
	// then the client drops messages.
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	sub.SetClosedHandler(func(string) { close(in.closed) })
	in.sub, f.inbox = sub, in
	return in, nil
}

// dropLocked gives up the inbox with its requests. Messages that are on their way still
// arrive.
func (f *fetcher) dropLocked() {
	if f.inbox != nil && f.inbox.sub.Drain() != nil {
		_ = f.inbox.sub.Unsubscribe()
	}
	f.inbox = nil
}

// receive takes a message from the server. The client calls it for one message after the other.
func (in *inbox) receive(msg *nats.Msg) {
	f := in.f
	f.mu.Lock()
	defer f.mu.Unlock()
	in.heard = time.Now()
	switch {
	case msg.Reply != "":
		in.wanted = max(0, in.wanted-1)
		f.arrived = append(f.arrived, msg)
	default:
		in.state(msg)
	}
	signal(f.wake)
}

// state takes the answer to a pull request that is not a message.
func (in *inbox) state(msg *nats.Msg) {
	switch code, text := msg.Header.Get("Status"), msg.Header.Get("Description"); {
	case code == "100": // a heartbeat
	case code == "408" && msg.Header.Get("Nats-Pending-Messages") != "": // expired
		left, err := strconv.Atoi(msg.Header.Get("Nats-Pending-Messages"))
		if err != nil {
			in.failed = fmt.Errorf("nats: end of a pull request: %w", err)
			return
		}
		in.wanted = max(0, in.wanted-left)
	case code == "409" && text == "Consumer Deleted":
		in.failed = in.f.gone()
	case code == "503": // nothing listens to pull requests
		in.failed = fmt.Errorf("nats: pull request to consumer %q of stream %q: %w", in.f.config.Consumer,
			in.f.config.Stream, nats.ErrNoResponders)
	default:
		in.failed = fmt.Errorf("nats: pull request to consumer %q of stream %q: got status %s %q", in.f.config.Consumer,
			in.f.config.Stream, code, text)
	}
}

// gone returns the error of a consumer that does not exist any more.
func (f *fetcher) gone() error {
	return fmt.Errorf("%w: consumer %q of stream %q was deleted", broker.ErrPermanent, f.config.Consumer, f.config.Stream)
}

// drain ends the pull requests and returns all messages that the server has sent before it
// heard of that.
func (f *fetcher) drain() []*broker.Message {
	f.mu.Lock()
	in := f.inbox
	f.inbox = nil
	f.mu.Unlock()
	if in != nil && in.sub.Drain() == nil {
		select {
		case <-in.closed:
		case <-time.After(drainWithin):
			_ = in.sub.Unsubscribe()
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	msgs, _ := f.takeLocked(len(f.arrived))
	return msgs
}

// Close implements broker.Fetcher.
func (f *fetcher) Close(ctx context.Context) error {
	f.js.Conn().RemoveStatusListener(f.status)
	var failed []error
	for _, m := range f.drain() { // arrived beyond the demand
		failed = append(failed, m.Nack(ctx, broker.Requeue()))
	}
	return errors.Join(failed...)
}
