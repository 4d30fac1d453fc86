package memory

import (
	"reflect"
	"runtime"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// departures is a codec that counts responses.
type departures struct {
	encoding.CodecV2

	bytes *Bytes
}

// Marshal puts a counter around each buffer that gRPC frees once it is written.
func (d departures) Marshal(v any) (mem.BufferSlice, error) {
	out, err := d.CodecV2.Marshal(v)
	var p *parcel
	for i, b := range out {
		data := b.ReadOnlyData()
		if mem.IsBelowBufferPoolingThreshold(cap(data)) {
			continue // gRPC does not free small buffers
		}
		if p == nil {
			p = d.bytes.sending.put(d.bytes, v)
		}
		c := &charge{inner: b, owed: p.owe(int64(len(data)))}
		// When a connection breaks, gRPC frees some buffers not at all.
		runtime.AddCleanup(&data, func(o *owed) { o.settle() }, c.owed)
		out[i] = mem.NewBuffer(&data, c)
	}
	return out, err
}

// A charge counts an encoded buffer until gRPC frees it. It poses as the pool of the buffer.
type charge struct {
	inner mem.Buffer
	owed  *owed
}

// Get implements mem.BufferPool. gRPC never calls it for a buffer that exists.
func (*charge) Get(n int) *[]byte {
	b := make([]byte, n)
	return &b
}

// Put implements mem.BufferPool.
func (c *charge) Put(*[]byte) {
	c.owed.settle()
	c.inner.Free()
}

// An owed is the part of a charge that is settled once. A cleanup of the collector holds it, so
// it must not refer to the buffer.
type owed struct {
	parcel *parcel
	size   int64
	done   atomic.Bool
}

func (o *owed) settle() {
	if o.done.CompareAndSwap(false, true) {
		o.parcel.settle(o.size)
	}
}

// A parcel is an encoded message that has not left. Its connection holds it, so it must not
// refer to its buffers.
type parcel struct {
	bytes *Bytes

	mu      sync.Mutex // guards the fields below
	buffers int        // that have not left
	size    int64      // of these
	call    *transfer  // that has sent it, nil until gRPC tells

	message any     // its key in sending; guarded by the lock of sending
	next    *parcel // with the same key; guarded by the lock of sending

	before, after *parcel // in the list of the connection; guarded by its lock
}

// owe adds a buffer to a parcel that is not sent yet.
func (p *parcel) owe(size int64) *owed {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.buffers == 0 {
		p.bytes.messages.Add(1)
	}
	p.bytes.change(p.size, p.size+size)
	p.buffers++
	p.size += size
	return &owed{parcel: p, size: size}
}

// attach says which call has sent the parcel. The call waits for it.
func (p *parcel) attach(t *transfer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.buffers > 0 {
		p.call = t
		t.Sending()
		t.conn.add(p)
	}
}

// settle counts a buffer of a size that has left.
func (p *parcel) settle(size int64) {
	p.mu.Lock()
	if p.buffers == 0 { // settled with its connection
		p.mu.Unlock()
		return
	}
	p.bytes.change(p.size, p.size-size)
	p.buffers--
	p.size -= size
	last := p.buffers == 0
	p.mu.Unlock()
	if last {
		p.leave()
	}
}

// settleAll counts the parcel as if it had left.
func (p *parcel) settleAll() {
	p.mu.Lock()
	left := p.buffers > 0
	p.bytes.change(p.size, 0)
	p.buffers, p.size = 0, 0
	p.mu.Unlock()
	if left {
		p.leave()
	}
}

// leave is called once, after the last buffer has left.
func (p *parcel) leave() {
	p.bytes.messages.Add(-1)
	p.bytes.sending.drop(p)
	p.mu.Lock()
	call := p.call
	p.mu.Unlock()
	if call != nil {
		call.conn.remove(p)
		call.Sent()
	}
}

// sending holds the parcels of messages between their encoding and the moment when gRPC tells
// which call has sent the message, because it does not tell a codec. The zero value is empty.
// It is safe for concurrent use.
type sending struct {
	mu      sync.Mutex // guards the field below
	parcels map[any]*parcel
}

// put returns an empty parcel for a message.
func (s *sending) put(b *Bytes, message any) *parcel {
	p := &parcel{bytes: b}
	if !isPointer(message) {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parcels == nil {
		s.parcels = map[any]*parcel{}
	}
	p.message, p.next = message, s.parcels[message]
	s.parcels[message] = p
	return p
}

// take returns a parcel of a message, nil if there is none. Calls may share a message. Then it
// does not matter which parcel a call takes, because each call has put one.
func (s *sending) take(message any) *parcel {
	if !isPointer(message) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parcels[message]
	if p != nil {
		s.unlinkLocked(p)
	}
	return p
}

// drop forgets a parcel that has left, or was never sent.
func (s *sending) drop(p *parcel) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.message != nil {
		s.unlinkLocked(p)
	}
}

func (s *sending) unlinkLocked(p *parcel) {
	at := s.parcels[p.message]
	switch {
	case at != p:
		for at.next != p {
			at = at.next
		}
		at.next = p.next
	case p.next == nil:
		delete(s.parcels, p.message)
	default:
		s.parcels[p.message] = p.next
	}
	p.message, p.next = nil, nil
}

// isPointer reports whether a message can be a key. A message of Protocol Buffers is a pointer.
func isPointer(message any) bool {
	return message != nil && reflect.TypeOf(message).Kind() == reflect.Pointer
}

// A connection lists the parcels that have not left, because gRPC does not free all of them
// when the connection breaks. The zero value is an open connection. It is safe for concurrent
// use.
type connection struct {
	mu   sync.Mutex // guards the field below, and the links of the list
	head *parcel
}

func (c *connection) add(p *parcel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.after = c.head; p.after != nil {
		p.after.before = p
	}
	c.head = p
}

// remove removes p if it is in the list.
func (c *connection) remove(p *parcel) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.after != nil {
		p.after.before = p.before
	}
	if p.before != nil {
		p.before.after = p.after
	} else if c.head == p {
		c.head = p.after
	}
	p.before, p.after = nil, nil
}

// end settles everything that has not left. gRPC accepts nothing after that, and frees it.
func (c *connection) end() {
	for p := c.first(); p != nil; p = c.first() {
		p.settleAll()
		c.remove(p) // another goroutine may be about to
	}
}

func (c *connection) first() *parcel {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head
}
