package rawend

import (
	"time"
)

// An item is a message in the queue of the writer.
type item struct {
	c       *control
	number  int64 // of an element, if c is nil
	payload int64
	more    int64 // further elements in the same Frame, for BatchesTooMuch
	half    bool  // a client's half-close
	done    bool
}

// putLocked queues a control message. It merges a Request or heartbeat into one that is queued already.
func (s *session) putLocked(c *control) {
	for _, it := range s.queue {
		if it.c == nil || it.c.kind != c.kind {
			continue
		}
		switch c.kind {
		case kindRequest:
			it.c.n += min(c.n, unbounded-it.c.n)
			it.c.consumed = max(it.c.consumed, c.consumed)
			it.c.drain = it.c.drain || c.drain
			return
		case kindHeartbeat:
			if it.c.nextBytes == 0 && c.nextBytes == 0 {
				*it.c = *c
				return
			}
		}
	}
	s.queue = append(s.queue, &item{c: c})
	s.changeLocked()
}

// write is the goroutine that writes the queue. It returns after a half-close, once stopped is set, or on a
// client when the stream has ended.
func (s *session) write() {
	for {
		it := s.nextItem()
		if it == nil {
			return
		}
		err := s.writeItem(it)
		s.mu.Lock()
		s.wrote, s.writing = time.Now(), false
		if err != nil {
			s.endLocked(err)
		}
		it.done = err == nil
		if it.c == nil && !it.half {
			s.waiting = false
		}
		s.changeLocked()
		s.mu.Unlock()
	}
}

// nextItem waits for an item that the flood rule allows to be written. It returns nil if there will be none.
func (s *session) nextItem() *item {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if s.stopped || s.halved || s.over != nil && !s.server {
			return nil
		}
		if len(s.queue) == 0 {
			s.waitLocked(nil)
			continue
		}
		it := s.queue[0]
		if it.c != nil && it.c.kind != kindOpen && s.fault != Floods && !s.mine.spend() {
			timer := time.NewTimer(time.Second / rate)
			s.waitLocked(timer.C)
			timer.Stop()
			continue
		}
		s.queue = s.queue[1:]
		s.halved, s.writing = it.half, true
		return it
	}
}

func (s *session) writeItem(it *item) error {
	switch {
	case it.half:
		s.st.halfClose()
		return nil
	case it.c != nil:
		var setup []byte
		if it.c.kind == kindOpen && !s.server {
			setup = s.script.raw
		}
		return s.st.send(s.encodeControl(it.c, setup))
	}
	e := encodeElement(it.number, make([]byte, it.payload))
	switch {
	case it.more > 0:
		var batch []byte
		for n := range it.more + 1 {
			batch = putBytes(batch, 1, encodeElement(it.number+n, make([]byte, it.payload)))
		}
		e = putBytes(nil, 3, batch)
	case s.framed:
		e = putBytes(nil, 2, e)
	}
	return s.st.send(e)
}

// encodeControl returns a message with a Control, and with the setup element if there is one.
func (s *session) encodeControl(c *control, setup []byte) []byte {
	if s.framed {
		if setup == nil {
			return putBytes(nil, 1, c.encode())
		}
		return putBytes(putBytes(nil, 2, setup), 4, c.encode())
	}
	if setup == nil {
		return putBytes(nil, 15, c.encode())
	}
	c.withData = true
	return putBytes(putBytes(nil, 3, setup), 15, c.encode())
}

// flush waits until the queue is written or the stream has ended, for at most limit.
func (s *session) flush(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for (len(s.queue) > 0 || s.writing) && s.over == nil {
		if !s.waitLocked(timer.C) {
			return
		}
	}
}
