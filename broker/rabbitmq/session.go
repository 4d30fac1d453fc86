package rabbitmq

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// handshake bounds the time for connecting to one node.
const handshake = 10 * time.Second

// A link is a connection with one channel. Consuming and publishing have a link each,
// because RabbitMQ stops reading from connections that publish when it is short of memory.
type link struct {
	conn *amqp.Connection
	ch   *amqp.Channel
	raw  net.Conn
	gone chan *amqp.Error // closed when the channel has ended, with the error before
}

// dial connects to the node at url and opens a channel. It returns soon after ctx has ended.
func dial(ctx context.Context, url string, client amqp.Config) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, handshake)
	defer cancel()
	l := &link{gone: make(chan *amqp.Error, 1)}
	var stop func() bool
	client = fresh(client)
	connect := client.Dial
	if connect == nil {
		connect = func(network, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		}
	}
	client.Dial = func(network, addr string) (net.Conn, error) {
		raw, err := connect(network, addr)
		if err != nil {
			return nil, err
		}
		l.raw = raw
		stop = context.AfterFunc(ctx, func() { _ = raw.Close() })
		return raw, nil
	}
	err := l.open(url, client)
	if stop != nil && !stop() && err == nil {
		err = amqp.ErrClosed
	}
	if err != nil {
		l.kill()
		return nil, errors.Join(ctx.Err(), err)
	}
	return l, nil
}

func (l *link) open(url string, client amqp.Config) (err error) {
	if l.conn, err = amqp.DialConfig(url, client); err != nil {
		return err
	}
	if l.ch, err = l.conn.Channel(); err != nil {
		return err
	}
	l.ch.NotifyClose(l.gone)
	return nil
}

// kill ends the connection without a word. It unblocks every call on it, and the broker
// takes back the messages.
func (l *link) kill() {
	if l.raw != nil {
		_ = l.raw.Close()
	}
}

// fresh copies the parts of a configuration that the client writes to. It fills in
// properties and the name of the TLS server, and clears the passwords after a login.
func fresh(c amqp.Config) amqp.Config {
	c.Properties = maps.Clone(c.Properties)
	c.TLSClientConfig = cloneTLS(c.TLSClientConfig)
	c.SASL = slices.Clone(c.SASL)
	for i, auth := range c.SASL {
		switch a := auth.(type) {
		case *amqp.PlainAuth:
			own := *a
			c.SASL[i] = &own
		case *amqp.AMQPlainAuth:
			own := *a
			c.SASL[i] = &own
		}
	}
	return c
}

func cloneTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	return c.Clone()
}

// A session is the link of a subscription while it lasts. Delivery tags count for one channel
// only, so each delivery knows its session.
type session struct {
	*link
	number  int // of the sessions, from 1
	dead    atomic.Bool
	written int    // settlements of orphans that were sent; guarded by subscription.mu
	proven  int    // of these, the ones that the broker has processed; guarded by subscription.mu
	lastTag uint64 // of the deliveries; used by the running consumer's goroutine
}

// A consumer is one subscription.
type consumer struct {
	session  *session
	tag      string
	ending   bool          // guarded by subscription.mu; the source cancels it
	canceled bool          // guarded by subscription.mu; its deliveries are orphans
	drained  chan struct{} // closed when all its deliveries were received
}

// connect opens a session with the first node that answers, from the one that follows the
// last.
func (s *subscription) connect(ctx context.Context) (*session, error) {
	var errs []error
	for range s.cfg.URLs {
		url := s.cfg.URLs[s.node%len(s.cfg.URLs)]
		s.node++
		l, err := dial(ctx, url, s.cfg.Client)
		if err == nil {
			if err = s.check(ctx, l); err == nil {
				s.sessions++
				return &session{link: l, number: s.sessions}, nil
			}
			l.kill()
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("rabbitmq: connect to queue %q: %w", s.cfg.Queue, errors.Join(errs...))
}

// check asks whether the queue and the place for dead letters exist.
func (s *subscription) check(ctx context.Context, l *link) error {
	defer context.AfterFunc(ctx, l.kill)()
	if _, err := l.ch.QueueDeclarePassive(s.cfg.Queue, false, false, false, false, nil); err != nil {
		return err
	}
	if s.cfg.DeadLetterExchange != "" {
		return l.ch.ExchangeDeclarePassive(s.cfg.DeadLetterExchange, "direct", false, false, false, false, nil)
	}
	if s.cfg.DeadLetterKey != "" {
		_, err := l.ch.QueueDeclarePassive(s.cfg.DeadLetterKey, false, false, false, false, nil)
		return err
	}
	return nil
}
