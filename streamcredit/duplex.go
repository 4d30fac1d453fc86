package streamcredit

// A Duplex is one end of a stream that sends and receives. Each direction has a credit
// of its own and ends by itself. Best each has a goroutine of its own. One goroutine that
// does both can rely on sending about half of its peer's window more than it has received,
// one element with a window of 1, and should use Recv: the body of an All loop that waits
// in Send holds back its element's room, and its peer may be in the same place.
type Duplex[O, I any] struct {
	// Out is the direction in which this end sends.
	Out *Sender[O]
	// In is the direction in which this end receives.
	In *Receiver[I]

	end func() error
}

func newDuplex[O, I any](s *session[O, I]) *Duplex[O, I] {
	d := &Duplex[O, I]{end: s.closeAll}
	if s.out != nil {
		d.Out = &Sender[O]{s}
	}
	if s.in != nil {
		d.In = &Receiver[I]{s}
	}
	return d
}

// Close ends what has not ended: the incoming direction is canceled, the outgoing one
// closed with Close. On a client it then ends the call, and waits for that, a second for
// the server to do its part where both directions had ended before. The error is that of
// the call's status in that case, else nil. Closing twice is closing once.
func (d *Duplex[O, I]) Close() error { return d.end() }
