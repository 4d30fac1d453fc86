package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
)

// pongWithin bounds the wait for the answer to a ping.
const pongWithin = 3 * time.Second

// A link watches over the connection of a source. A firewall that forgets a connection
// lets nobody know. The client notices by its own pings, which takes minutes by default.
// So the source pings when another answer is overdue.
type link struct {
	nc   *nats.Conn
	turn chan struct{} // holds an element while a check runs
}

func newLink(nc *nats.Conn) *link { return &link{nc: nc, turn: make(chan struct{}, 1)} }

// answers reports whether the server answers a ping. If it does not, the client gives up
// the connection and connects again. answers returns soon after ctx ends.
func (l *link) answers(ctx context.Context) bool {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	defer func() { <-l.turn }()
	reconnects := l.nc.Stats().Reconnects
	if !l.nc.IsConnected() {
		return false
	}
	pong, cancel := context.WithTimeout(ctx, pongWithin)
	defer cancel()
	if l.nc.FlushWithContext(pong) == nil {
		return true
	}
	if ctx.Err() == nil && l.nc.IsConnected() && l.nc.Stats().Reconnects == reconnects {
		_ = l.nc.ForceReconnect() // a connection that is closed shows elsewhere
	}
	return false
}

// because adds the last error that the server has sent or the client has met to err.
func (l *link) because(err error) error {
	last := l.nc.LastError()
	if last == nil || errors.Is(err, last) {
		return err
	}
	return fmt.Errorf("%w (the last error of the connection: %w)", err, last)
}
