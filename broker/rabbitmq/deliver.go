package rabbitmq

import (
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/weir-go/weir/broker"
)

// A delivery is a message with its place on the channel. It is the broker.Settler of the
// message.
type delivery struct {
	source   *subscription
	consumer *consumer
	tag      uint64
	message  *broker.Message
	original amqp.Delivery

	// Used by one settlement at a time.
	copied bool // the dead letter is stored
	noted  bool // the attempt is counted
}

// receive takes the deliveries of a consumer, in order, until it ends.
func (s *subscription) receive(c *consumer, deliveries <-chan amqp.Delivery) {
	for d := range deliveries {
		s.returnSkipped(c.session, d.DeliveryTag)
		if isStream(d.Headers) {
			s.fail(fmt.Errorf("rabbitmq: queue %q is a stream, want a classic or a quorum queue: %w", s.cfg.Queue, broker.ErrPermanent))
		}
		s.deliver(c, s.newDelivery(c, d))
	}
	close(c.drained)
	s.mu.Lock()
	ending := c.ending
	s.mu.Unlock()
	if !ending && !c.session.ch.IsClosed() { // drive learns of a closed channel, and why
		s.lose(c.session, errCanceled)
	}
}

var errCanceled = errors.New("the broker has canceled the consumer")

// returnSkipped gives back deliveries that the client has dropped, because they arrived after the
// end of their consumer. The broker numbers the deliveries of a channel without gaps.
func (s *subscription) returnSkipped(current *session, tag uint64) {
	for current.lastTag++; current.lastTag < tag; current.lastTag++ {
		if current.ch.Nack(current.lastTag, false, true) != nil {
			return
		}
	}
}

func (s *subscription) deliver(c *consumer, d *delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.session.dead.Load() {
		return // the broker delivers it again
	}
	s.window.Deliver()
	s.moved = time.Now()
	s.buffer = append(s.buffer, d)
	signal(s.ready)
	s.growLocked()
}

// isStream reports whether a delivery comes from a stream. Only streams number their
// messages.
func isStream(headers amqp.Table) bool {
	_, ok := headers["x-stream-offset"].(int64)
	return ok
}

func (s *subscription) newDelivery(c *consumer, d amqp.Delivery) *delivery {
	own := &delivery{source: s, consumer: c, tag: d.DeliveryTag, original: d}
	m := broker.Message{ID: d.MessageId, Body: d.Body, Attributes: attributes(&d), Attempt: s.attempts.of(&d)}
	if m.ID == "" {
		m.ID = strconv.Itoa(c.session.number) + "/" + strconv.FormatUint(d.DeliveryTag, 10)
	}
	if s.cfg.Key != nil {
		m.Key = s.cfg.Key(d)
	}
	own.message = broker.NewMessage(m, own)
	return own
}

// attributes returns the headers that are text, and the properties that describe the
// content under the names of the protocol. A header wins over a property.
func attributes(d *amqp.Delivery) map[string]string {
	var m map[string]string
	set := func(name, value string) {
		if value == "" {
			return
		}
		if m == nil {
			m = make(map[string]string, len(d.Headers)+1)
		}
		m[name] = value
	}
	set("content-type", d.ContentType)
	set("content-encoding", d.ContentEncoding)
	set("correlation-id", d.CorrelationId)
	set("reply-to", d.ReplyTo)
	set("type", d.Type)
	for name, value := range d.Headers {
		switch v := value.(type) {
		case string:
			set(name, v)
		case []byte:
			if utf8.Valid(v) {
				set(name, string(v))
			}
		}
	}
	return m
}
