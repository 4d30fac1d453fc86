package rawend

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The kinds of Control, by their field numbers. Zero is an unknown kind.
const (
	kindOpen int = 1 + iota
	kindRequest
	kindCancel
	kindComplete
	kindError
	kindDrained
	kindHeartbeat
)

// The features, by their wire numbers.
const (
	featureConsumed = 1 + iota
	featureDrain
	featureHeartbeat
	featureBatch
	featureUnfinished
)

// A control is a Control with the fields of all kinds.
type control struct {
	kind     int
	withData bool

	open      open
	n         int64 // Request
	consumed  uint64
	drain     bool
	total     uint64 // Complete, Error
	goingAway bool
	code      int
	message   string
	sent      uint64 // Drained, Heartbeat
	burned    int64
	echo      bool
	credit    int64
	nextBytes int64
}

type open struct {
	minVersion, maxVersion    uint64
	features                  map[uint64]bool
	willSend, willReceive     bool
	initial                   *control // a Request
	maxMessage, maxBuffered   int64
	heartbeatNanos, maxCredit int64
	heldMessages              int64
}

func decodeControl(b []byte) (*control, error) {
	c := &control{}
	var inner error
	err := eachField(b, func(num int, v uint64, b []byte) {
		switch {
		case num == 15:
			c.withData = v != 0
		case num >= kindOpen && num <= kindHeartbeat && b != nil:
			c.kind = num
			if err := c.decodeKind(b); err != nil {
				inner = err
			}
		}
	})
	if err == nil {
		err = inner
	}
	return c, err
}

func (c *control) decodeKind(b []byte) error {
	var inner error
	err := eachField(b, func(num int, v uint64, b []byte) {
		switch c.kind {
		case kindOpen:
			inner = c.open.decode(num, v, b)
		case kindRequest:
			c.decodeRequest(num, v)
		case kindComplete:
			switch num {
			case 1:
				c.total = v
			case 2:
				c.goingAway = v != 0
			}
		case kindError:
			switch num {
			case 1:
				c.code = int(int32(v))
			case 2:
				c.message = string(b)
			case 4:
				c.total = v
			}
		case kindDrained:
			switch num {
			case 1:
				c.sent = v
			case 2:
				c.burned = int64(v)
			}
		case kindHeartbeat:
			c.decodeHeartbeat(num, v)
		}
	})
	if err == nil {
		err = inner
	}
	return err
}

func (c *control) decodeRequest(num int, v uint64) {
	switch num {
	case 1:
		c.n = int64(v)
	case 2:
		c.consumed = v
	case 3:
		c.drain = v != 0
	}
}

func (c *control) decodeHeartbeat(num int, v uint64) {
	switch num {
	case 1:
		c.echo = v != 0
	case 2:
		c.sent = v
	case 3:
		c.credit = int64(v)
	case 4:
		c.nextBytes = int64(v)
	}
}

func (o *open) decode(num int, v uint64, b []byte) error {
	switch num {
	case 1:
		o.minVersion = v
	case 2:
		o.maxVersion = v
	case 3:
		return o.decodeFeatures(v, b)
	case 4:
		o.willSend = v != 0
	case 5:
		o.willReceive = v != 0
	case 6:
		o.initial = &control{kind: kindRequest}
		return o.initial.decodeKind(b)
	case 7:
		o.maxMessage = int64(v)
	case 8:
		o.maxBuffered = int64(v)
	case 9:
		return eachField(b, func(num int, v uint64, _ []byte) {
			switch num {
			case 1:
				o.heartbeatNanos += int64(v) * 1e9
			case 2:
				o.heartbeatNanos += int64(v)
			}
		})
	case 11:
		o.maxCredit = int64(v)
	}
	return nil
}

// decodeFeatures adds one feature, or all features of a packed field.
func (o *open) decodeFeatures(v uint64, packed []byte) error {
	if o.features == nil {
		o.features = map[uint64]bool{}
	}
	if packed == nil {
		o.features[v] = true
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return protowire.ParseError(n)
		}
		o.features[v] = true
		packed = packed[n:]
	}
	return nil
}

func (c *control) encode() []byte {
	var k []byte
	switch c.kind {
	case kindOpen:
		k = c.open.encode()
	case kindRequest:
		k = c.encodeRequest()
	case kindComplete:
		k = putBool(putVarint(nil, 1, c.total), 2, c.goingAway)
	case kindError:
		k = putVarint(nil, 1, uint64(c.code))
		k = putVarint(putBytes(k, 2, []byte(c.message)), 4, c.total)
	case kindDrained:
		k = putVarint(putVarint(nil, 1, c.sent), 2, uint64(c.burned))
	case kindHeartbeat:
		k = putVarint(putBool(nil, 1, c.echo), 2, c.sent)
		k = putVarint(putVarint(k, 3, uint64(c.credit)), 4, uint64(c.nextBytes))
	}
	return putBool(putBytes(nil, c.kind, k), 15, c.withData)
}

func (c *control) encodeRequest() []byte {
	return putBool(putVarint(putVarint(nil, 1, uint64(c.n)), 2, c.consumed), 3, c.drain)
}

func (o *open) encode() []byte {
	b := putVarint(putVarint(nil, 1, o.minVersion), 2, o.maxVersion)
	for f := range o.features {
		b = putVarint(b, 3, f)
	}
	b = putBool(putBool(b, 4, o.willSend), 5, o.willReceive)
	if o.initial != nil {
		b = putBytes(b, 6, o.initial.encodeRequest())
	}
	b = putVarint(putVarint(b, 7, uint64(o.maxMessage)), 8, uint64(o.maxBuffered))
	if o.heartbeatNanos > 0 {
		b = putBytes(b, 9, putVarint(putVarint(nil, 1, uint64(o.heartbeatNanos/1e9)), 2, uint64(o.heartbeatNanos%1e9)))
	}
	return putVarint(putVarint(b, 10, uint64(o.heldMessages)), 11, uint64(o.maxCredit))
}
