package streamcredit

import (
	"context"
	"math"
	"sync"

	"google.golang.org/grpc/metadata"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit/internal/queue"
)

const (
	// batchElement is the size up to which elements share a message. Larger elements cost more
	// to copy than a message of their own.
	batchElement = 1 << 10
	// batchBytes bounds a message of several elements, if the receiver has announced that it
	// takes so large an element. Otherwise safeBatch is the bound, since the sender does not
	// know the largest message that the receiver's gRPC takes.
	batchBytes = 32 << 10
	safeBatch  = 8 << 10
	// batchCost is the size that an element adds to a message besides its bytes. frameCost is
	// the size of a message without elements and control.
	batchCost, frameCost = 4, 8
	// queuedBytes is how many bytes wait for the transport before Send waits.
	queuedBytes = 128 << 10
	// queuedControls is how many messages of control alone wait for the transport before the
	// wire is crowded.
	queuedControls = 64
	// writtenFirst is how many elements of a server are accepted only once they are written. A
	// handler that sends a few elements and returns loses none. A handler that sends many gets
	// batches.
	writtenFirst = 64
)

// framed is the wire of a stream of Frames. Its elements are bytes. While there is something to
// write a goroutine of its own writes it, and elements that come meanwhile share the next
// message. It never waits for more elements.
type framed struct {
	stream     Stream[creditpb.Frame, creditpb.Frame]
	closeSend  func() error      // nil on a server
	setTrailer func(metadata.MD) // nil on a client
	broke      func(error)       // called with an error that the read loop does not learn of
	eased      func()            // called when the wire is no longer crowded

	mu       sync.Mutex // guards the fields below
	batched  int        // largest batch in bytes; 0 if the peer takes none
	written  int        // number of further elements that are accepted only once they are written
	warned   bool       // the client was told not to take OK alone for a proper end
	queue    queue.FIFO[*outFrame]
	queued   int           // bytes
	messages uint64        // written so far
	controls int           // messages of control alone
	held     bool          // the wire is crowded until eased
	tail     *outFrame     // the last message in the queue, if it can take more
	last     *outFrame     // the last message that is not written, or nil
	shared   int           // elements in the last batch that was written
	err      error         // of the first write that failed
	idle     chan struct{} // closed when the goroutine has ended; nil if none runs
	room     chan struct{} // closed when there is room; nil if no Send waits
}

// An outFrame is a Frame that is being filled.
type outFrame struct {
	frame *creditpb.Frame // nil for a half-close
	size  int             // of its elements; 0 if there are none
	gone  chan struct{}   // closed when it was written or never will be; nil if no Send waits
}

func newFramed(stream Stream[creditpb.Frame, creditpb.Frame]) *framed { return &framed{stream: stream} }

// newServedFramed returns the wire of a server. Until warns is called it accepts an element only
// once it is written. Nothing of this end runs after the handler has returned, and an element
// that waits then is lost.
func newServedFramed(stream Stream[creditpb.Frame, creditpb.Frame]) *framed {
	return &framed{stream: stream, written: math.MaxInt, setTrailer: trailerSetterOf(stream)}
}

// unfinishedTrailer tells a client that OK alone is not a proper end; see FEATURE_UNFINISHED.
const unfinishedTrailer = "weir-credit-unfinished"

func (w *framed) warns() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.setTrailer != nil {
		w.written = writtenFirst
	}
}

func (w *framed) call() any { return w.stream }

func (w *framed) bind(broke func(error), eased func()) { w.broke, w.eased = broke, eased }

func (w *framed) batch(most int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.batched = int(most)
}

// batchBound returns the size of the largest batch for a peer with the Open o. A batch is not
// announced to a peer that expects heartbeats, so it must not look like silence on a slow line.
func batchBound(o *creditpb.Open) int64 {
	most := int64(safeBatch)
	if largest := o.GetMaxMessageBytes(); largest > 0 {
		most = min(largest, batchBytes)
	}
	if d := o.GetHeartbeat().AsDuration(); d > 0 {
		most = min(most, quickly(d))
	}
	return most
}

func (w *framed) writeControl(c *creditpb.Control) error {
	return w.enqueue(&creditpb.Frame{Body: &creditpb.Frame_Control{Control: c}})
}

func (w *framed) crowded() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = w.held || w.err == nil && w.controls >= queuedControls
	return w.held
}

func (w *framed) carried() (writing bool, messages uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.idle != nil, w.messages
}

func (w *framed) writeHalfClose() error { return w.enqueue(nil) }

func (w *framed) enqueue(f *creditpb.Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.enqueueLocked(&outFrame{frame: f})
	w.controls++
	w.tail = nil
	return nil
}

func (w *framed) writeSetup(open *creditpb.Control, e []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	w.enqueueLocked(&outFrame{frame: &creditpb.Frame{Body: &creditpb.Frame_Data{Data: e}, Piggyback: open}, size: len(e) + batchCost})
	return nil
}

func (w *framed) writeElement(e []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.awaitRoomLocked(); err != nil {
		return err
	}
	if w.setTrailer != nil && w.written == 0 && !w.warned {
		w.warned = true
		w.setTrailer(metadata.Pairs(unfinishedTrailer, "1"))
	}
	if w.joinLocked(e) {
		return nil
	}
	f := &outFrame{frame: &creditpb.Frame{Body: &creditpb.Frame_Data{Data: e}}, size: len(e) + batchCost}
	w.enqueueLocked(f)
	w.tail = nil
	if w.written > 0 {
		w.written--
		f.gone = make(chan struct{})
		w.mu.Unlock()
		<-f.gone
		w.mu.Lock()
		return w.err
	}
	if w.batched > 0 && len(e) <= batchElement {
		w.tail = f
	}
	return nil
}

// joinLocked puts e into the last message of the queue, if it may, and reports whether it did.
func (w *framed) joinLocked(e []byte) bool {
	f := w.tail
	if f == nil || len(e) > batchElement || f.size+len(e)+batchCost+frameCost > w.batched {
		return false
	}
	switch body := f.frame.GetBody().(type) {
	case *creditpb.Frame_Batch:
		body.Batch.Data = append(body.Batch.Data, e)
	case *creditpb.Frame_Data:
		data := append(make([][]byte, 0, max(2, w.shared)), body.Data, e) // batches in a row are of one size
		f.frame.Body = &creditpb.Frame_Batch{Batch: &creditpb.Batch{Data: data}}
	}
	f.size += len(e) + batchCost
	w.queued += len(e) + batchCost
	return true
}

func (w *framed) enqueueLocked(f *outFrame) {
	w.queue.Push(f)
	w.last = f
	w.queued += f.size
	if w.idle == nil {
		w.idle = make(chan struct{})
		go w.writeQueue(w.idle) // join waits for it; the end of the stream ends it
	}
}

// awaitRoomLocked waits while too many bytes wait for the transport.
func (w *framed) awaitRoomLocked() error {
	for w.err == nil && w.queued >= queuedBytes {
		if w.room == nil {
			w.room = make(chan struct{})
		}
		room := w.room
		w.mu.Unlock()
		<-room
		w.mu.Lock()
	}
	return w.err
}

// write writes f.
func (w *framed) write(f *outFrame) error {
	if f.frame == nil {
		return w.closeSend()
	}
	return w.stream.Send(f.frame)
}

// flush waits for the last message that is queued now. Messages that follow it do not matter.
func (w *framed) flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	last := w.last
	if last == nil {
		return w.err
	}
	if last.gone == nil {
		last.gone = make(chan struct{})
	}
	w.mu.Unlock()
	select {
	case <-last.gone:
	case <-ctx.Done():
	}
	w.mu.Lock()
	if w.last == last {
		return ctx.Err()
	}
	return w.err
}

// join waits until the goroutine that writes has ended.
func (w *framed) join() {
	w.mu.Lock()
	idle := w.idle
	w.mu.Unlock()
	if idle != nil {
		<-idle
	}
}

func (w *framed) read(into [][]byte) (*creditpb.Control, [][]byte, error) {
	f, err := w.stream.Recv()
	if err != nil {
		return nil, into, err
	}
	switch body := f.GetBody().(type) {
	case *creditpb.Frame_Control:
		return body.Control, into, nil
	case *creditpb.Frame_Data:
		return f.GetPiggyback(), append(into, body.Data), nil
	case *creditpb.Frame_Batch:
		w.mu.Lock()
		batched := w.batched > 0
		w.mu.Unlock()
		if !batched {
			return nil, into, violation(UnexpectedFrame, "none: FEATURE_BATCH is not used", "a batch")
		}
		return f.GetPiggyback(), body.Batch.GetData(), nil // no copy, since a batch may have millions of empty elements
	}
	return f.GetPiggyback(), into, nil
}

func (*framed) check([]byte) error   { return nil }
func (*framed) sizeOut(e []byte) int { return len(e) }
func (*framed) sizeIn(e []byte) int  { return len(e) }

func (*framed) setup(m any) ([]byte, error) {
	e, ok := m.([]byte)
	if !ok {
		return nil, invalid("WithSetup: got a %T, want []byte", m)
	}
	return e, nil
}
