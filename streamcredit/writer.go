package streamcredit

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A writerState decides which frames may be written on a stream. It goes forward only.
type writerState uint8

const (
	writerOpening    writerState = iota // only this end's Open may be written
	writerOpen                          // control, and elements and a terminal as the outgoing ledger says
	writerUnaware                       // elements, to a peer that does not know the protocol
	writerHalfClosed                    // nothing, since a client has half-closed its stream
)

// String returns the name of the state as it stands in DESIGN.md.
func (s writerState) String() string {
	return [...]string{"Opening", "Open", "Unaware", "HalfClosed"}[s]
}

// A frame is a kind of message.
type frame uint8

const (
	frameOpen frame = iota
	frameControl
	frameElement
	frameTerminal
	frameHalfClose
)

// A writer is the half of a session that writes. All messages pass through it, in the order of
// its lock. mayWrite decides which frames may still be written. The holder of the lock writes
// pending control first. A goroutine that leaves control in pending and does not get the lock can
// go, because the holder looks at pending again after it has released the lock.
type writer[O any] struct {
	ctx  context.Context // of the stream
	wire writes[O]
	out  *outgoing // nil if this end does not send elements
	host host

	pending pending

	*lock              // guards state and bucket, and is held during every write
	state  writerState // decides which frames may be written
	bucket bucket      // the peer's bucket as this end counts it, with a margin

	scheduled atomic.Bool // a goroutine is about to write pending control

	pacer struct {
		sync.Mutex             // guards the fields below
		timer      *time.Timer // writes pending control that would be a flood now; nil until used
		set        bool
		stopped    bool
	}

	began    time.Time
	messages atomic.Uint64 // messages written
	lastAt   atomic.Int64  // time of the last write since began, if the peer expects heartbeats; else 0
	large    atomic.Int64  // size in bytes from which elements are announced to the peer; else 0

	stuck stuck // the guard against writes that the transport does not take

	controls atomic.Uint64 // for the meter, like the next two
	elements atomic.Uint64
	bytes    atomic.Uint64
	metered  bool
}

// A host is the session of a writer.
type host interface {
	// help runs f in a goroutine that the session waits for.
	help(f func())
	// elements returns the number of elements that have passed, in both directions.
	elements() uint64
	// reasonFor returns why a write failed with err.
	reasonFor(err error) error
	// fail ends the session with err.
	fail(err error)
}

func newWriter[O any](ctx context.Context, wire writes[O], out *outgoing, h host, metered bool) *writer[O] {
	return &writer[O]{
		ctx: ctx, wire: wire, out: out, host: h, lock: newLock(), bucket: newBucket(floodBurst / 2),
		began: time.Now().Add(-1), metered: metered,
	}
}

// mayWrite reports whether f may be written now. The caller holds the lock, or the answer may be
// out of date. [outgoing.take] applies credit, the byte window and the peer's largest element as
// well.
func (w *writer[O]) mayWrite(f frame) bool {
	switch f {
	case frameOpen:
		return w.state == writerOpening
	case frameControl:
		return w.state == writerOpen
	case frameElement:
		return w.out != nil && (w.state == writerOpen || w.state == writerUnaware) && w.out.state().Sends()
	case frameTerminal:
		return w.out != nil && w.state == writerOpen && w.out.state().Terminates()
	case frameHalfClose:
		return w.state == writerOpen && (w.out == nil || !w.out.state().Terminates())
	}
	return false
}

// unaware restricts the writer to elements. It is called before the first write.
func (w *writer[O]) unaware() { w.state = writerUnaware }

// opened records that this end's Open is written, and releases the lock.
func (w *writer[O]) opened() {
	if w.state == writerOpening {
		w.state = writerOpen
	}
	w.unlock()
	w.writePending()
}

// writeSoon writes pending control in another goroutine. It is for the read loop and for timers,
// which must not wait.
func (w *writer[O]) writeSoon() {
	if !w.pending.waits.Load() || !w.scheduled.CompareAndSwap(false, true) {
		return
	}
	w.host.help(func() {
		w.scheduled.Store(false) // before the look at pending, so that later control schedules another goroutine
		w.writePending()
	})
}

// writePending writes pending control. It leaves control to the holder of the lock, to a crowded
// wire once it has eased, or to a timer if more control would be a flood.
func (w *writer[O]) writePending() {
	for w.pending.waits.Load() && !w.wire.crowded() && w.tryLock() {
		paced, err := w.writePendingAndUnlock(false)
		if err != nil {
			return // the session has failed, or the read loop learns the cause
		}
		if paced {
			w.writePaced()
			return
		}
	}
}

// errPaced is the error of writeNow if more control would be a flood now.
var errPaced = errors.New("streamcredit: control is paced")

// writeNow writes pending control, and waits until the transport has it. If more control would be
// a flood and urgent is not set, it does not write and returns errPaced.
func (w *writer[O]) writeNow(ctx context.Context, urgent bool) error {
	for {
		if err := w.lockUntil(ctx); err != nil {
			return err
		}
		paced, err := w.writePendingAndUnlock(urgent)
		w.writePending()
		switch err = errors.Join(err, w.wire.flush(ctx)); {
		case err != nil || !w.pending.waits.Load():
			return err
		case paced:
			return errPaced
		case ctx.Err() != nil:
			return ctx.Err()
		} // the wire was crowded, and has room after the flush
	}
}

func (w *writer[O]) writePendingAndUnlock(urgent bool) (paced bool, err error) {
	returned := false
	defer w.release(&returned)
	paced, err = w.writePendingLocked(urgent)
	returned = true
	return paced, err
}

// writePendingLocked writes pending control. It stops if the wire is crowded. Unless urgent is
// set, it also stops if the peer would take more control for a flood, and returns paced. The
// remaining control adds up in pending.
func (w *writer[O]) writePendingLocked(urgent bool) (paced bool, err error) {
	for w.pending.waits.Load() && !w.wire.crowded() {
		if !urgent && !w.bucket.fill(w.host.elements) {
			return true, nil
		}
		c, half := w.pending.take(w.out)
		switch {
		case !w.mayWrite(frameControl): // dropped, since the peer would not read it
		case half:
			w.state = writerHalfClosed
			err := w.wire.writeHalfClose()
			if err != nil {
				w.lostLocked(err)
			}
			return false, err
		case c != nil:
			if err := w.writeControlLocked(c); err != nil {
				w.lostLocked(err)
				return false, err
			}
		}
		if c == nil {
			break
		}
	}
	return false, nil
}

// lostLocked ends the session after control or an end could not be written, since the peer may wait
// for it.
// A stream that has ended needs no more control, and the read loop learns the cause.
func (w *writer[O]) lostLocked(err error) {
	if !isEOF(err) && w.ctx.Err() == nil {
		w.host.fail(err)
	}
}

// writePaced writes pending control after a moment, as often as the flood rule allows.
func (w *writer[O]) writePaced() {
	p := &w.pacer
	p.Lock()
	defer p.Unlock()
	switch {
	case p.stopped || p.set:
		return
	case p.timer == nil:
		p.timer = time.AfterFunc(moment, func() {
			p.Lock()
			p.set = false
			p.Unlock()
			w.writeSoon()
		})
	default:
		p.timer.Reset(moment)
	}
	p.set = true
}

// stop stops the writer's timer. Writes fail once the stream has ended.
func (w *writer[O]) stop() {
	w.pacer.Lock()
	defer w.pacer.Unlock()
	w.pacer.stopped = true
	if w.pacer.timer != nil {
		w.pacer.timer.Stop()
	}
}

// writeControlLocked writes c alone.
func (w *writer[O]) writeControlLocked(c *creditpb.Control) error {
	w.bucket.spend(w.host.elements)
	w.noteWrite()
	w.controls.Add(1)
	return w.wire.writeControl(c)
}

// writeOpenLocked writes this end's Open, with the setup element if there is one.
func (w *writer[O]) writeOpenLocked(open *creditpb.Control, setup *O) error {
	if setup == nil {
		return w.writeControlLocked(open)
	}
	w.noteWrite()
	w.controls.Add(1)
	return w.wire.writeSetup(open, *setup)
}

// writeTerminalLocked writes pending control and then the terminal that of makes. It reports
// whether this call ended the direction.
func (w *writer[O]) writeTerminalLocked(of func(sent uint64) *creditpb.Control) (first bool, err error) {
	if w.out.state().Terminates() {
		_, err = w.writePendingLocked(false) // the remaining control follows the terminal, and a Drained is no longer needed
	}
	sent, first := w.out.close() // from here on there may be a half-close to write, after the terminal
	if first && w.state == writerOpen && err == nil {
		if err = w.writeControlLocked(of(sent)); err != nil {
			w.lostLocked(err)
		}
	}
	return first, err
}
