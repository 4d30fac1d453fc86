package broker

// A Message is one message of a broker. Settle each one once, with Ack or Nack. Its
// fields must not be changed. Its methods are safe for concurrent use.
type Message struct {
	// ID names the message in logs. Its form depends on the broker.
	ID string
	// Key groups messages that must stay in order. Empty if the broker knows no keys or
	// the message has none.
	Key string
	// Body is the content.
	Body []byte
	// Attributes are the headers. The values of headers that are not text are left out.
	Attributes map[string]string
	// Attempt counts the deliveries of this message, from 1. It is 0 if the broker does
	// not count.
	Attempt int
}
