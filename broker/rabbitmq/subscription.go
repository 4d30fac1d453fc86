package rabbitmq

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weir-go/weir/broker"
	"github.com/weir-go/weir/broker/rabbitmq/internal/window"
)

// A subscription is the broker.Fetcher of one queue. One goroutine, drive, makes every call
// that the broker answers, except for connecting. Settlements are sent by their callers.
type subscription struct {
	cfg  Config
	life context.Context // ends when nothing may wait any longer
	end  context.CancelFunc

	wake  chan struct{} // holds an element if drive may have something to do
	ready chan struct{} // holds an element if Fetch may have something to return
	done  chan struct{} // closed when drive has ended

	node, sessions int // used by Open and Fetch
	consumers      int // used by drive
	publisher      publisher
	attempts       attempts
	work           sync.WaitGroup // goroutines of sessions

	mu       sync.Mutex // guards the fields below and the window
	window   window.Window
	session  *session  // the last one, which may be dead
	consumer *consumer // the running one, or nil
	buffer   []*delivery
	failed   error         // the permanent error
	loss     error         // of the session, until Fetch has returned it
	resting  bool          // no consumer is to run any more
	closing  bool          // drive is to end when nothing is held
	changing bool          // the consumer is about to be canceled, so its settlements wait
	moved    time.Time     // of the last delivery or settlement of the running consumer
	changed  chan struct{} // if not nil, closed when a waiting settlement should look again
	crowded  int           // settlements that wait until the consumer is canceled
	unproven int           // settlements that wait until the broker has processed them
	timer    *time.Timer   // of ticks
	ticking  bool          // timer runs
	ticked   bool          // timer has fired
}

var _ broker.Requester = (*subscription)(nil)

const (
	// tick is the time between two looks at a surplus of demand. It is long for a request
	// that an acknowledgement follows, and short for a person.
	tick = 5 * time.Millisecond
	// probation is the time after which a new session counts as a good one.
	probation = time.Second
)

// Open connects to a node and returns the source of a queue. It fails if no node answers, or
// if the queue or the place for dead letters does not exist. The error wraps [ErrConfig] if
// the configuration is wrong, and then names every mistake. ctx bounds Open only.
//
// Acknowledgements do not wait for the broker while the demand stays level, because the
// protocol has no answer to them. If the connection is lost meanwhile, the message comes
// again.
func Open(ctx context.Context, c Config) (broker.Source, error) {
	c, err := c.validate()
	if err != nil {
		return nil, err
	}
	s := &subscription{
		cfg:   c,
		wake:  make(chan struct{}, 1),
		ready: make(chan struct{}, 1),
		done:  make(chan struct{}),
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
	s.session = first
	go s.drive()
	source, err := broker.NewSource(s, c.Source)
	if err != nil {
		s.end()
		<-s.done
	}
	return source, err
}

// Request implements broker.Requester.
func (s *subscription) Request(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.Request(n)
	s.growLocked()
}

// growLocked has drive start a larger consumer, at once or if the need for it lasts.
func (s *subscription) growLocked() {
	switch {
	case s.window.Urgent():
		signal(s.wake)
	case !s.ticking && s.window.Short() && !s.resting:
		s.ticking = true
		s.window.Arm()
		s.timer.Reset(tick)
	}
}

func (s *subscription) onTick() {
	s.mu.Lock()
	s.ticking, s.ticked = false, true
	s.mu.Unlock()
	signal(s.wake)
}

// Fetch implements broker.Fetcher. It connects again if the connection is lost. When ctx
// ends, the source is closing, and nothing more is consumed.
func (s *subscription) Fetch(ctx context.Context, n int) ([]*broker.Message, error) {
	fresh, err := s.restore(ctx)
	if err != nil {
		s.rest(ctx)
		return nil, err
	}
	var good <-chan time.Time
	if fresh {
		good = time.After(probation)
	}
	for {
		messages, err := s.take(n)
		if len(messages) > 0 || err != nil {
			return messages, err
		}
		select {
		case <-s.ready:
		case <-good:
			return nil, nil // so that the source knows that the connection is back
		case <-ctx.Done():
			s.rest(ctx)
			return nil, ctx.Err()
		}
	}
}

// restore opens a new session if the last one is dead. It first returns the error of that
// one.
func (s *subscription) restore(ctx context.Context) (fresh bool, err error) {
	s.mu.Lock()
	err = s.loss
	s.loss = nil
	dead := s.session.dead.Load()
	s.mu.Unlock()
	if err != nil || !dead {
		return false, err
	}
	next, err := s.connect(ctx)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	s.session = next
	s.mu.Unlock()
	signal(s.wake)
	return true, nil
}

// take takes at most n messages from the buffer.
func (s *subscription) take(n int) ([]*broker.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return nil, s.failed
	}
	if err := s.loss; err != nil {
		s.loss = nil
		return nil, err
	}
	n = min(n, len(s.buffer))
	if n == 0 {
		return nil, nil
	}
	messages := make([]*broker.Message, n)
	for i, d := range s.buffer[:n] {
		messages[i] = d.message
		s.buffer[i] = nil
	}
	s.buffer = s.buffer[n:]
	return messages, nil
}

// rest ends the consumer if ctx has ended.
func (s *subscription) rest(ctx context.Context) {
	if ctx.Err() == nil {
		return
	}
	s.mu.Lock()
	s.resting = true
	s.mu.Unlock()
	signal(s.wake)
}

// Close implements broker.Fetcher. It gives back messages that Fetch has not returned.
func (s *subscription) Close(ctx context.Context) error {
	s.mu.Lock()
	s.resting, s.closing = true, true
	s.mu.Unlock()
	signal(s.wake)
	select {
	case <-s.done:
	case <-ctx.Done():
		s.end()
		<-s.done
	}
	s.timer.Stop()
	return nil
}

// fail makes Fetch return an error that no other try can mend.
func (s *subscription) fail(err error) {
	s.mu.Lock()
	s.failed = errors.Join(s.failed, err)
	s.resting = true
	s.mu.Unlock()
	signal(s.wake)
	signal(s.ready)
}

// announceLocked has waiting settlements look again.
func (s *subscription) announceLocked() {
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
}

// changesLocked returns a channel that is closed by announceLocked.
func (s *subscription) changesLocked() <-chan struct{} {
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
