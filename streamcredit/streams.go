package streamcredit

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/peer"
)

// A StreamState is one open stream of a [Meter], for a page that people read.
type StreamState struct {
	// Method is the full method name and Peer the address of the client, if this end is the
	// server. A client's end has neither.
	Method, Peer string
	// Server tells whether this end is the server.
	Server bool
	// Opened is when the stream was opened.
	Opened time.Time
	// Sends and Receives tell in which directions this end carries elements. Sender and
	// Receiver are the states of the two directions.
	Sends, Receives bool
	Sender          SenderStats
	Receiver        ReceiverStats
	// SendWaits and RecvWaits are how long a Send has waited for demand, and a Recv for an
	// element. They are 0 if none waits.
	SendWaits, RecvWaits time.Duration
}

// waits returns the longest wait of the stream.
func (s *StreamState) waits() time.Duration { return max(s.SendWaits, s.RecvWaits) }

// mostLooked bounds the streams that Streams looks at.
const mostLooked = 4096

// Streams returns up to n open streams, the one with a Send or a Recv that has waited longest
// first. It looks at 4,096 streams at most. Its cost grows with the number of open streams, and
// it takes the locks that Stats takes, one after the other.
func (m *Meter) Streams(n int) []StreamState {
	m.mu.Lock()
	most := min(len(m.open), mostLooked)
	m.mu.Unlock()
	open := make([]metered, 0, most) // not under the lock, because the allocator may take long
	m.mu.Lock()
	for s := range m.open {
		if open = append(open, s); len(open) >= mostLooked {
			break
		}
		m.restLocked(len(open))
	}
	m.mu.Unlock()
	all := make([]StreamState, 0, len(open))
	for _, s := range open {
		all = append(all, s.describe())
	}
	slices.SortFunc(all, func(a, b StreamState) int {
		return cmp.Or(cmp.Compare(b.SendWaits, a.SendWaits), cmp.Compare(b.waits(), a.waits()), a.Opened.Compare(b.Opened))
	})
	return slices.Clip(all[:min(max(n, 0), len(all))])
}

// describe returns the state of the session.
func (s *session[O, I]) describe() StreamState {
	d := StreamState{Server: s.role.server, Opened: s.began, Sends: s.out != nil, Receives: s.in != nil}
	if d.Server {
		d.Method, _ = grpc.Method(s.ctx)
		if p, ok := peer.FromContext(s.ctx); ok && p.Addr != nil {
			d.Peer = p.Addr.String()
		}
	}
	if s.out != nil {
		d.Sender, d.SendWaits = s.out.stats(), s.out.waits()
	}
	if s.in != nil {
		d.Receiver, d.RecvWaits = s.in.stats(), s.in.waits()
	}
	return d
}

// waits returns how long a Send has waited for demand, or 0.
func (o *outgoing) waits() time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.waiting == 0 {
		return 0
	}
	return time.Since(o.since)
}

// waits returns how long a Recv has waited for an element, or 0.
func (r *incoming[I]) waits() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == 0 {
		return 0
	}
	return time.Since(r.since)
}
