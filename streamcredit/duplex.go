package streamcredit

// A Duplex is one end of a stream that sends and receives. Each direction has its own credit and
// ends by itself. Run each direction in its own goroutine. A single goroutine may send only about
// half of the peer's window more elements than it has received, or one with a window of 1. With
// more, both ends may wait for each other. It should call Recv and not All. An All loop that waits
// in Send has not consumed its element, so the peer may wait in the same place.
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

// Close ends the directions that have not ended. It cancels the incoming direction, and closes
// the outgoing one like Sender.Close. On a client it then ends the call and waits for its end. If
// both directions had ended before, it first gives the server one second to end the call, and
// returns the error of the call's status. Otherwise it returns nil. Close may be called more than
// once.
func (d *Duplex[O, I]) Close() error { return d.end() }
