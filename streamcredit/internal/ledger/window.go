package ledger

import "time"

// Window decides how much a receiver requests. It takes no lock and reads no clock. The zero
// value is manual demand, which requests nothing by itself.
//
// An automatic window starts small and follows two signs. If the consumer waits longer for the
// first element of a grant than for other elements, the sender was waiting for that grant, and
// the window doubles. If the buffer stays more than half full whenever the receiver asks for
// more, further credit only makes elements queue, and the window shrinks. A slow source makes
// the consumer wait for all elements alike, which changes nothing.
type Window struct {
	size int64 // most elements that are requested and not consumed; 0 for manual demand
	low  int64 // outstanding credit at which to request more; -1 for the default

	auto     bool
	min, max int64   // bounds of size
	bytes    int64   // bound of size times weight
	weight   float64 // mean size of elements, in bytes

	edges [16]uint64 // last element before each of the latest grants; a ring
	next  int        // index in edges

	edgeWait  time.Duration // time spent waiting for the first element of a grant
	edgeWaits int           // number of such waits
	otherWait time.Duration // time spent waiting for other elements
	seen      int64         // elements consumed while these waits were collected
	since     time.Duration // start of that collection

	full int // consecutive judgements that found the buffer more than half full
}

// Fixed returns a window of size elements. It asks for more when the outstanding credit has
// fallen to low, or to the default low-water mark if low is -1.
func Fixed(size, low int64) Window { return Window{size: size, low: low} }

// Automatic returns a window that moves between least and most elements, and holds at most
// bytes of payload by the mean size of elements.
func Automatic(least, most, bytes int64) Window {
	w := Window{auto: true, low: -1, min: least, max: most, bytes: bytes}
	w.resize(autoStart)
	return w
}

// The default bounds of an automatic window.
const (
	AutoMin   = 16       // elements
	AutoMax   = 1 << 16  // elements
	AutoBytes = 16 << 20 // payload
)

// The law of the automatic window.
const (
	leastChunk  = 32
	autoStart   = 64 // initial size, in elements
	growShare   = 16 // grow if waits for grants take more than 1/growShare of the time,
	growRatio   = 4  // and the mean wait for a grant is growRatio times the wait for another element,
	growEdges   = 2  // over at least growEdges waits
	forget      = 16 // discard evidence after so many waits for grants
	shrinkAfter = 8  // shrink after so many judgements of a full buffer in a row
)

// chunk returns the least amount to request at once. The default is a quarter of a small window
// and an eighth of a large one, with a lower bound so that grants do not cost more than elements.
// Larger grants come too late. The sender has stopped by then, and waking it costs more than the
// saved messages.
func (w *Window) chunk() int64 {
	if w.low >= 0 {
		return max(1, w.size-w.low)
	}
	return min(max(leastChunk, min(w.size/4, 4*leastChunk), w.size/8), w.size-w.size/2)
}

// room returns how much to request while held elements are requested and not consumed.
func (w *Window) room(held int64) int64 {
	if room := w.size - held; w.size > 0 && room >= w.chunk() {
		return room
	}
	return 0
}

// granted records that the demand before the next grant ends with element edge.
func (w *Window) granted(edge uint64) {
	if w.auto {
		w.edges[w.next%len(w.edges)] = edge
		w.next++
	}
}

// Waited records that the consumer waited for element last+1.
func (w *Window) Waited(last uint64, wait time.Duration) {
	if !w.auto {
		return
	}
	for _, edge := range w.edges {
		if edge == last {
			w.edgeWait += wait
			w.edgeWaits++
			return
		}
	}
	w.otherWait += wait
}

// Weigh records the size in bytes of one element, as a sample of the mean.
func (w *Window) Weigh(size int) {
	w.weight += (float64(size) - w.weight) / 8
}

// judge adapts the size. It is called whenever more is asked for. n elements were consumed since
// the last call, backlog elements are in the buffer, and now is the time since a fixed moment.
func (w *Window) judge(n int64, backlog int, now time.Duration) {
	if !w.auto {
		return
	}
	w.seen += n
	if float64(backlog) > float64(w.size-w.chunk())/2 {
		w.full++
	} else {
		w.full = 0
	}
	switch {
	case w.starved(now - w.since):
		w.resize(2 * w.size)
	case w.full >= shrinkAfter:
		w.resize(w.size - w.size/4)
	case w.edgeWaits < forget:
		return
	}
	w.since, w.edgeWait, w.edgeWaits, w.otherWait, w.seen = now, 0, 0, 0, 0
}

// starved reports whether the consumer spent too much of the time elapsed waiting for grants.
func (w *Window) starved(elapsed time.Duration) bool {
	others := float64(max(1, w.seen-int64(w.edgeWaits)))
	return w.edgeWaits >= growEdges && w.edgeWait*growShare > elapsed &&
		float64(w.edgeWait)/float64(w.edgeWaits) > growRatio*float64(w.otherWait)/others
}

// bound limits the window to most elements.
func (w *Window) bound(most int64) {
	switch {
	case w.auto:
		w.max = min(w.max, most)
		w.min = min(w.min, w.max)
		w.resize(w.size)
	case w.size > most:
		w.size, w.low = most, min(w.low, most-1)
	}
}

func (w *Window) resize(size int64) {
	most := w.max
	if bound := float64(w.bytes) / w.weight; bound < float64(most) { // without a weight the bound is infinite
		most = int64(bound)
	}
	w.size = max(w.min, min(size, most))
	w.full = 0
}
