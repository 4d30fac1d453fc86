package streamcredit

import (
	"errors"
	"io"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// writeElement writes e and releases the lock. It then writes control that has become pending
// meanwhile.
func (w *writer[O]) writeElement(e O) (sent bool, err error) {
	sent, err = w.writeElementAndUnlock(e)
	w.writePending()
	return sent, err
}

func (w *writer[O]) writeElementAndUnlock(e O) (sent bool, err error) {
	returned := false
	defer w.release(&returned)
	sent, err = w.writeElementLocked(e)
	returned = true
	return sent, err
}

// writeElementLocked writes pending control and then e, if there is credit for it. Control never
// shares a message with an element, which may already be as large as the peer takes.
func (w *writer[O]) writeElementLocked(e O) (sent bool, err error) {
	if _, err := w.writePendingLocked(false); err != nil {
		return false, w.host.reasonFor(err)
	}
	size, sent, err := w.out.take(func() int { return w.wire.sizeOut(e) })
	if !sent {
		return false, err
	}
	w.announceLocked(size)
	if err := w.wire.writeElement(e); err != nil {
		return false, w.notWritten(err, size)
	}
	w.out.wrote()
	w.noteWrite()
	if w.metered {
		w.elements.Add(1)
		w.bytes.Add(uint64(size))
	}
	return true, nil
}

// notWritten undoes writeElementLocked for an element that could not be written. The stream may
// go on if it has not ended. Then an interceptor has refused the element or gRPC could not encode
// it, and nothing was written.
func (w *writer[O]) notWritten(err error, size int64) error {
	w.out.restore(size)
	if w.ctx.Err() != nil || errors.Is(err, io.EOF) {
		return w.host.reasonFor(err)
	}
	return err
}

// noteWrite records that a message is written now.
func (w *writer[O]) noteWrite() {
	w.messages.Add(1)
	if w.lastAt.Load() != 0 {
		w.lastAt.Store(w.age())
	}
}

// age returns how long the writer has existed. It is never 0.
func (w *writer[O]) age() int64 { return int64(time.Since(w.began)) }

// beat returns a Heartbeat with the state of the outgoing direction.
func (w *writer[O]) beat() *creditpb.Heartbeat {
	if w.out == nil {
		return &creditpb.Heartbeat{}
	}
	return w.out.beat()
}

// announceLocked announces a large element to a peer that expects heartbeats, since no heartbeat
// can overtake it.
func (w *writer[O]) announceLocked(size int64) {
	if large := w.large.Load(); large == 0 || size <= large {
		return
	}
	b := w.beat()
	b.Sent, b.Credit = b.GetSent()-1, saturate(b.GetCredit(), 1) // the element is counted already, and comes after this
	b.NextBytes = size
	_ = w.writeControlLocked(&creditpb.Control{Kind: &creditpb.Control_Heartbeat{Heartbeat: b}}) // if it fails, so does the element
}
