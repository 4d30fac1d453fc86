package streamcredit

import (
	"errors"
	"io"
)

// writeQueue writes the messages in the queue until it is empty.
func (w *framed) writeQueue(idle chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer close(idle)
	defer func() { // also after runtime.Goexit of an interceptor
		for w.err != nil && w.queue.Len() > 0 {
			w.goneLocked(w.queue.Pop()) // a goroutine that waits for it looks at err
		}
		w.idle = nil
	}()
	for w.err == nil && w.queue.Len() > 0 {
		f := w.queue.Pop()
		if f == w.tail {
			w.tail = nil
		}
		w.writeNextLocked(f)
	}
}

// writeNextLocked writes f. The lock is free meanwhile.
func (w *framed) writeNextLocked(f *outFrame) {
	var err error
	returned := false
	w.mu.Unlock()
	defer func() {
		if !returned {
			err = abrupt(recover())
		}
		if err != nil && !errors.Is(err, io.EOF) {
			w.broke(err) // first: a goroutine that waits for f wants to know why
		}
		w.mu.Lock()
		if w.wroteLocked(f, err) {
			w.mu.Unlock()
			w.eased()
			w.mu.Lock()
		}
	}()
	err = w.write(f)
	returned = true
}

// wroteLocked records that f was written, or could not be. It reports whether the wire is no
// longer crowded.
func (w *framed) wroteLocked(f *outFrame, err error) (eased bool) {
	w.queued -= f.size
	w.messages++
	if f.size > 0 {
		w.shared = len(f.frame.GetBatch().GetData())
	}
	if err != nil {
		w.err = io.EOF
	}
	w.goneLocked(f)
	if w.room != nil && (w.queued < queuedBytes || w.err != nil) {
		close(w.room)
		w.room = nil
	}
	if f.size == 0 {
		w.controls--
	}
	eased = w.held && (w.controls <= queuedControls/2 || w.err != nil)
	w.held = w.held && !eased
	return eased
}

// goneLocked records that f was written, or never will be.
func (w *framed) goneLocked(f *outFrame) {
	if f == w.last {
		w.last = nil
	}
	if f.gone != nil {
		close(f.gone)
	}
}
