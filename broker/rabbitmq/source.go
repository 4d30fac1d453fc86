package rabbitmq

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq/internal/window"
)

// A Source is the broker.Source of one queue. One goroutine, drive, makes every call that
// the broker answers. Settlements are sent by their callers.
type Source struct {
	cfg  Config
	life context.Context // ends when nothing may wait any longer
	end  context.CancelFunc

	wake   chan struct{} // holds an element if drive may have something to do
	ready  chan struct{} // holds an element if Next may have something to return
	closed chan struct{} // closed by Close, or by a permanent error
	done   chan struct{} // closed when drive has ended

	node, sessions, consumers int // used by drive
	publisher                 publisher
	attempts                  attempts
	work                      sync.WaitGroup // goroutines of sessions

	mu       sync.Mutex // guards the fields below and the window
	window   window.Window
	session  *session  // the last one, which may be dead
	consumer *consumer // the running one, or nil
	buffer   []*delivery
	failed   error         // the permanent error
	closing  bool          // closed is closed
	changed  chan struct{} // if not nil, closed when a waiting settlement should look again
	crowded  int           // settlements that wait until the consumer is canceled
	unproven int           // settlements that wait until the broker has processed them
	failures int           // sessions that have ended soon, and failed attempts, in a row
	timer    *time.Timer   // of ticks
	ticking  bool          // timer runs
	ticked   bool          // timer has fired
}

var _ broker.Source = (*Source)(nil)

// tick is the time between two looks at a surplus of demand. It is long for a request that
// an acknowledgement follows, and short for a person.
const tick = 5 * time.Millisecond

// Open connects to a node and returns the source of a queue. It fails if no node answers, or
// if the queue or the place for dead letters does not exist. The error wraps [ErrConfig] if
// the configuration is wrong. ctx bounds Open only.
//
// Acknowledgements do not wait for the broker while the demand stays level, because the
// protocol has no answer to them. If the connection is lost meanwhile, the message comes
// again.
func Open(ctx context.Context, c Config) (*Source, error) {
	c, err := c.validate()
	if err != nil {
		return nil, err
	}
	s := &Source{
		cfg:    c,
		wake:   make(chan struct{}, 1),
		ready:  make(chan struct{}, 1),
		closed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.publisher.init(&s.cfg, s.life)
	s.timer = time.AfterFunc(time.Hour, s.onTick)
	s.timer.Stop()
	first, err := s.connect(ctx)
	if err != nil {
		s.end()
		return nil, err
	}
	s.install(first)
	go s.drive()
	return s, nil
}

// Request implements [broker.Source].
func (s *Source) Request(n int) {
	if n < 1 {
		return
	}
	s.mu.Lock()
	s.window.Request(n)
	urgent := s.window.Urgent()
	if !urgent {
		s.armLocked()
	}
	s.mu.Unlock()
	if urgent {
		signal(s.wake)
	}
}

// armLocked starts the timer if the demand has grown.
func (s *Source) armLocked() {
	if !s.ticking && s.window.Short() && !s.closing {
		s.ticking = true
		s.window.Arm()
		s.timer.Reset(tick)
	}
}

func (s *Source) onTick() {
	s.mu.Lock()
	s.ticking, s.ticked = false, true
	s.mu.Unlock()
	signal(s.wake)
}

// Next implements [broker.Source].
func (s *Source) Next(ctx context.Context) (*broker.Message, error) {
	for {
		m, err := s.pop()
		if m != nil || err != nil {
			return m, err
		}
		select {
		case <-s.ready:
		case <-s.closed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pop takes the next message from the buffer. It returns neither a message nor an error
// when it must wait.
func (s *Source) pop() (*broker.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	if s.closing {
		return nil, io.EOF
	}
	if len(s.buffer) == 0 {
		return nil, nil //nolint:nilnil // documented: the caller waits
	}
	d := s.buffer[0]
	s.buffer[0] = nil
	s.buffer = s.buffer[1:]
	if len(s.buffer) > 0 {
		signal(s.ready) // another Next may wait
	}
	return d.message, nil
}

// Close implements [broker.Source]. It also waits for messages of lost connections that are
// still held.
func (s *Source) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closeLocked()
	s.mu.Unlock()
	signal(s.wake)
	select {
	case <-s.done:
		return nil
	default:
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.end()
	<-s.done
	return ctx.Err()
}

func (s *Source) closeLocked() {
	if !s.closing {
		s.closing = true
		s.timer.Stop()
		close(s.closed)
	}
}

// fail ends the deliveries with an error that no other try can mend.
func (s *Source) fail(err error) {
	s.mu.Lock()
	if s.failed == nil {
		s.failed = err
	}
	s.closeLocked()
	s.mu.Unlock()
	signal(s.wake)
	s.report(err)
}

// report tells the program of an error.
func (s *Source) report(err error) {
	if s.cfg.OnError != nil {
		s.cfg.OnError(err)
	}
}

// announceLocked has waiting settlements look again.
func (s *Source) announceLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// changesLocked returns a channel that is closed by announceLocked.
func (s *Source) changesLocked() <-chan struct{} {
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.changed
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
