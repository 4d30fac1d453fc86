// Package queue holds elements in the order of their arrival.
package queue

// FIFO is a first-in, first-out queue in a ring. The ring grows on demand. A large ring is
// released when the queue becomes empty. The zero value is an empty queue. A FIFO is not safe
// for concurrent use.
type FIFO[T any] struct {
	ring []T // its length is a power of two
	head int // the index of the oldest element
	n    int
}

const (
	smallRing = 16
	largeRing = 4096
)

// Len returns the number of elements.
func (q *FIFO[T]) Len() int { return q.n }

// Push appends e.
func (q *FIFO[T]) Push(e T) {
	if q.n == len(q.ring) {
		q.grow()
	}
	q.ring[(q.head+q.n)&(len(q.ring)-1)] = e
	q.n++
}

func (q *FIFO[T]) grow() {
	ring := make([]T, max(smallRing, 2*len(q.ring)))
	k := copy(ring, q.ring[q.head:])
	copy(ring[k:], q.ring[:q.head])
	q.ring, q.head = ring, 0
}

// Pop removes and returns the oldest element. The queue must not be empty.
func (q *FIFO[T]) Pop() T {
	var zero T
	e := q.ring[q.head]
	q.ring[q.head] = zero
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.n--
	if q.n == 0 && len(q.ring) > largeRing {
		q.Clear()
	}
	return e
}

// Clear removes all elements and releases the ring.
func (q *FIFO[T]) Clear() { *q = FIFO[T]{} }
