package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"maps"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The headers of a dead letter, in addition to the headers of the message.
const (
	HeaderReason     = "weir-reason"      // why it was set aside
	HeaderQueue      = "weir-queue"       // where it came from
	HeaderExchange   = "weir-exchange"    // where it was published
	HeaderRoutingKey = "weir-routing-key" // the same
	HeaderAttempt    = "weir-attempt"     // the number of its last delivery
)

// A publisher stores dead letters, one after the other. It has a connection of its own,
// which it opens when it is needed. RabbitMQ blocks that connection while it is short of
// memory or disk.
type publisher struct {
	cfg  *Config
	life context.Context // of the source
	turn chan struct{}   // holds an element while a publish runs; guards the fields below
	link *link
	back chan amqp.Return
	node int
	over bool
}

func (p *publisher) init(cfg *Config, life context.Context) { //nolint:revive // the context is kept
	p.cfg, p.life, p.turn = cfg, life, make(chan struct{}, 1)
}

// publish stores a copy of the message and returns when the broker has confirmed it.
func (p *publisher) publish(ctx context.Context, d *delivery, reason string) error {
	if !p.cfg.deadLetters() {
		return fmt.Errorf("rabbitmq: message %q cannot be set aside: got neither DeadLetterExchange nor DeadLetterKey", d.message.ID)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.life, cancel)()
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-p.turn }()
	err := p.attempt(ctx, d, reason)
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("rabbitmq: dead letter of queue %q: %w", p.cfg.Queue, err)
}

// attempt publishes once. It ends the connection after an error that does not tell whether the
// broker has the message.
func (p *publisher) attempt(ctx context.Context, d *delivery, reason string) error {
	if err := p.open(ctx); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, p.link.kill) // a blocked connection blocks the write
	key := p.cfg.DeadLetterKey
	if key == "" {
		key = d.original.RoutingKey
	}
	confirm, err := p.link.ch.PublishWithDeferredConfirm(p.cfg.DeadLetterExchange, key, true, false, letter(d, p.cfg.Queue, reason))
	if !stop() && err == nil {
		err = ctx.Err()
	}
	var stored bool
	if err == nil {
		stored, err = p.confirmed(ctx, confirm)
	}
	if err != nil {
		p.drop()
		return err
	}
	return p.outcome(stored)
}

// confirmed waits for the broker's word.
func (p *publisher) confirmed(ctx context.Context, confirm *amqp.DeferredConfirmation) (bool, error) {
	select {
	case <-confirm.Done():
		if p.link.ch.IsClosed() && !confirm.Acked() {
			return false, amqp.ErrClosed
		}
		return confirm.Acked(), nil
	case err := <-p.link.gone:
		if err != nil {
			return false, err
		}
		return false, amqp.ErrClosed
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// outcome tells whether a confirmed message was stored. A message without a queue is
// returned before it is confirmed.
func (p *publisher) outcome(stored bool) error {
	select {
	case back := <-p.back:
		return fmt.Errorf("the broker has returned it: %d %s", back.ReplyCode, back.ReplyText)
	default:
	}
	if !stored {
		return errors.New("the broker has refused it")
	}
	return nil
}

// open connects if there is no connection.
func (p *publisher) open(ctx context.Context) error {
	switch {
	case p.over:
		return amqp.ErrClosed
	case p.link != nil && !p.link.ch.IsClosed():
		return nil
	}
	p.drop()
	var errs []error
	for range p.cfg.URLs {
		url := p.cfg.URLs[p.node%len(p.cfg.URLs)]
		l, err := dial(ctx, url, p.cfg.Client)
		if err == nil {
			if err = p.use(ctx, l); err == nil {
				return nil
			}
		}
		errs = append(errs, err)
		p.node++
	}
	return errors.Join(errs...)
}

func (p *publisher) use(ctx context.Context, l *link) error {
	stop := context.AfterFunc(ctx, l.kill)
	err := l.ch.Confirm(false)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		l.kill()
		return err
	}
	p.back = l.ch.NotifyReturn(make(chan amqp.Return, 1))
	p.link = l
	return nil
}

// drop ends the connection.
func (p *publisher) drop() {
	if p.link != nil {
		p.link.kill()
		p.link = nil
	}
}

// close ends the publisher.
func (p *publisher) close() {
	p.turn <- struct{}{}
	p.over = true
	p.drop()
	<-p.turn
}

// letter copies a message. It leaves out the headers and properties that would send the copy
// elsewhere, end it early or have it refused.
func letter(d *delivery, queue, reason string) amqp.Publishing {
	o := &d.original
	headers := maps.Clone(o.Headers)
	if headers == nil {
		headers = amqp.Table{}
	}
	delete(headers, "CC")
	delete(headers, "x-delivery-count")
	headers[HeaderReason] = reason
	headers[HeaderQueue] = queue
	headers[HeaderExchange] = o.Exchange
	headers[HeaderRoutingKey] = o.RoutingKey
	headers[HeaderAttempt] = int32(min(d.message.Attempt, 1<<30))
	return amqp.Publishing{
		Headers: headers, Body: o.Body, DeliveryMode: amqp.Persistent, Priority: o.Priority,
		ContentType: o.ContentType, ContentEncoding: o.ContentEncoding, CorrelationId: o.CorrelationId,
		ReplyTo: o.ReplyTo, MessageId: o.MessageId, Timestamp: o.Timestamp, Type: o.Type, AppId: o.AppId,
	}
}
