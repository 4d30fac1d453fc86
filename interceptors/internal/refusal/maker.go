package refusal

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/weir-go/weir/admit"
)

// A Maker makes the errors of calls that the gates of one interceptor refuse. It is safe
// for concurrent use once its codes are set. Use [NewServer] or [NewClient].
type Maker struct {
	codes     codeTable
	client    bool
	built     sync.Map // of *Error, by *admit.Refusal
	usual     usualErrors
	overQuota quotaErrors
}

// NewServer returns a Maker for calls that arrive.
func NewServer() *Maker { return &Maker{codes: serverCodes} }

// NewClient returns a Maker for calls that leave.
func NewClient() *Maker { return &Maker{codes: clientCodes, client: true} }

// SetCode sets the code of refusals for a reason. See [Sound] for the codes that gRPC
// would not take for errors.
func (m *Maker) SetCode(why admit.Reason, code codes.Code) {
	if int(why) < len(m.codes) {
		m.codes[why] = Sound(code)
	}
}

// Error returns the error for a call that a gate did not admit.
func (m *Maker) Error(err error) *Error {
	if r, ok := err.(*admit.Refusal); ok { //nolint:errorlint // Acquire does not wrap it, and this is the hot path
		return m.refusal(r)
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errDeadline
	case errors.Is(err, context.Canceled):
		return errCanceled
	}
	return newError(err, status.FromContextError(err), nil) // a context of the user's own making
}

// refusal returns the error for a refusal. Each is built once. A gate shares a few hundred
// refusals among all its calls, so the map is bounded. Refusals over a quota are not,
// because of their exact delays.
func (m *Maker) refusal(r *admit.Refusal) *Error {
	if r.Reason == admit.OverQuota {
		return m.overQuota.of(r, m)
	}
	slot := m.usual.slot(r)
	usual := slot.Load()
	if usual != nil && usual.cause == error(r) { //nolint:errorlint // is it this very one
		return usual
	}
	v, ok := m.built.Load(r)
	if !ok {
		v, _ = m.built.LoadOrStore(r, m.build(r))
	}
	s := v.(*Error) //nolint:forcetypeassert // the map holds nothing else
	if usual == nil {
		slot.CompareAndSwap(nil, s)
	}
	return s
}

// usualErrors holds some of the errors in Maker.built, for faster access. The first error
// that needs a slot keeps it.
type usualErrors [256]atomic.Pointer[Error]

func (u *usualErrors) slot(r *admit.Refusal) *atomic.Pointer[Error] {
	i := uint64(r.RetryAfter/time.Millisecond) + uint64(r.Reason)<<5
	return &u[i%uint64(len(u))]
}

func (m *Maker) build(r *admit.Refusal) *Error {
	is := Local(r)
	text := serverText(r.Reason, is.Gate) + advice(r)
	if m.client {
		text = clientText(r.Reason, is.Gate)
	}
	s := newError(r, newStatus(m.codes.of(r.Reason), text, is), is)
	s.trailer = metadata.MD{PushbackKey: {strconv.FormatInt(is.RetryAfter.Milliseconds(), 10)}}
	return s
}

// OfTap returns the errors of a tap handle, by admit.Reason. They have no details, because
// the connection's only reader would have to marshal them; see textRefusal.
func (m *Maker) OfTap(gate string) []error {
	all := make([]error, len(m.codes))
	for why := range all {
		all[why] = status.Error(m.codes.of(admit.Reason(why)), serverText(admit.Reason(why), label(gate)))
	}
	return all
}
