package streamcredit

import "time"

// window decides how much a receiver asks for. It is arithmetic: no lock, no clock.
// The zero value is manual demand, which never asks by itself.
//
// An automatic window starts small and follows two signs. The consumer waits, and
// waits longer for the first element of a grant than for others: then the sender
// had been waiting for that grant, and the window doubles. The buffer is never
// low when more is asked for: then more credit only makes elements queue, and the window shrinks. A source
// that is merely slow makes the consumer wait for all elements alike, which moves
// nothing.
type window struct {
	size int64 // elements asked for and not consumed, at most; 0: manual
	low  int64 // outstanding credit at which to ask for more; -1: the default

	auto     bool
	min, max int64   // the bounds of size
	bytes    int64   // a bound of size times weight
	weight   float64 // the mean size of elements

	edges [16]uint64 // elements that the last grants were granted after; a ring
	next  int        // in edges

	edgeWait  time.Duration // spent waiting for the first element of a grant
	edgeWaits int
	otherWait time.Duration // spent waiting for others
	seen      int64         // elements consumed since
	since     time.Duration // when this began to be collected

	full int // judgements in a row that found the buffer rather full
}

// The law of the automatic window.
const (
	leastChunk  = 32
	autoStart   = 64       // elements at first
	autoMin     = 16       // elements at least
	autoMax     = 1 << 16  // elements at most
	autoBytes   = 16 << 20 // payload of a full window
	growShare   = 16       // waiting for grants costs more than this part of the time
	growRatio   = 4        // and a grant is waited for this much longer than another element
	growEdges   = 2        // seen so often at least
	forget      = 16       // waits for grants after which old evidence makes room for new
	shrinkAfter = 8        // windows' worth of elements for which the buffer never got low
)

// chunk is how much is asked for at once, at least: by default a quarter of a small window and
// an eighth of a large one, but not so little that grants cost more than elements. Larger
// grants come too late: the sender has stopped by then, and to wake it up costs more
// than they save.
func (w *window) chunk() int64 {
	if w.low >= 0 {
		return max(1, w.size-w.low)
	}
	return min(max(leastChunk, min(w.size/4, 4*leastChunk), w.size/8), w.size-w.size/2)
}

// room returns how much to ask for when held elements were asked for and are not
// consumed.
func (w *window) room(held int64) int64 {
	if room := w.size - held; w.size > 0 && room >= w.chunk() {
		return room
	}
	return 0
}

// granted notes that what was asked for up to now ends with element edge.
func (w *window) granted(edge uint64) {
	if w.auto {
		w.edges[w.next%len(w.edges)] = edge
		w.next++
	}
}

// waited notes that the consumer waited for element last+1.
func (w *window) waited(last uint64, wait time.Duration) {
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

// weigh notes the size of an element in bytes: a sample.
func (w *window) weigh(size int) {
	w.weight += (float64(size) - w.weight) / 8
}

// judge changes the size, whenever more is asked for. n elements were consumed since,
// backlog are in the buffer, and now is the time since some fixed moment.
func (w *window) judge(n int64, backlog int, now time.Duration) {
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

// starved reports whether the consumer waited for grants, over the time elapsed.
func (w *window) starved(elapsed time.Duration) bool {
	others := float64(max(1, w.seen-int64(w.edgeWaits)))
	return w.edgeWaits >= growEdges && w.edgeWait*growShare > elapsed &&
		float64(w.edgeWait)/float64(w.edgeWaits) > growRatio*float64(w.otherWait)/others
}

// bound keeps the window from asking for more than most at once.
func (w *window) bound(most int64) {
	switch {
	case w.auto:
		w.max = min(w.max, most)
		w.min = min(w.min, w.max)
		w.resize(w.size)
	case w.size > most:
		w.size, w.low = most, min(w.low, most-1)
	}
}

func (w *window) resize(size int64) {
	most := w.max
	if bound := float64(w.bytes) / w.weight; bound < float64(most) { // not so without a weight: it is infinite
		most = int64(bound)
	}
	w.size = max(w.min, min(size, most))
	w.full = 0
}
