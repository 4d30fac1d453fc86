package streamcredit

import (
	"fmt"
)

// An interceptor, a codec or a message may panic or call runtime.Goexit while a message is read
// or written. In a goroutine of the application that is the application's affair, but the stream
// must end, and its lock must be free. In a goroutine of a session nobody else could recover from
// it, and it would end the process.

// abrupt returns the error of a stream whose reading or writing ended with the panic p, or with
// runtime.Goexit if p is nil.
func abrupt(p any) error {
	return faultStatus("reading or writing a message " + how(p)).Err()
}

// how describes the end of a function that did not return.
func how(p any) string {
	if p == nil {
		return "called runtime.Goexit"
	}
	return fmt.Sprintf("panicked: %v", p)
}

// shelter calls f and then after with its error, in a goroutine that this package has started for
// an application. If f panics or calls runtime.Goexit, the error says so, and the process goes on.
func shelter(f func() error, after func(error)) {
	returned, err := false, error(nil)
	defer func() {
		if !returned {
			err = abrupt(recover())
		}
		after(err)
	}()
	err = f()
	returned = true
}

// release releases the lock after a write. It is deferred. If the write did not return, a part of
// a message may be written, so the session fails.
func (w *writer[O]) release(returned *bool) {
	if !*returned {
		w.host.fail(errAbrupt)
	}
	w.unlock()
}

// errAbrupt is the error of a stream after a write that the application's goroutine did not
// survive. The panic itself is the application's.
var errAbrupt = faultStatus("writing a message panicked or called runtime.Goexit").Err()

// survive is deferred in a goroutine of the session. A panic ends the stream and not the process.
func (s *session[O, I]) survive() {
	if p := recover(); p != nil { //nolint:revive // survive is deferred
		s.fail(abrupt(p))
	}
}
