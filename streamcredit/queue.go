package streamcredit

// queue is first in, first out, in a ring that grows and, when it is empty, lets
// go of a ring that has grown large.
type queue[T any] struct {
	ring []T // its length is a power of two
	head int // where the oldest is
	n    int
}

const (
	smallRing = 16
	largeRing = 4096
)

func (q *queue[T]) len() int { return q.n }

func (q *queue[T]) push(e T) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = e
	q.n++
}

func (q *queue[T]) grow() {
	ring := make([]T, max(smallRing, 2*len(q.ring)))
	k := copy(ring, q.ring[q.head:])
	copy(ring[k:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

// pop returns the oldest element; there must be one.
func (q *queue[T]) pop() T {
	var zero T
	e := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 && len(q.ring) > largeRing {
		q.clear()
	}
	return e
}

func (q *queue[T]) clear() { *q = queue[T]{} }
