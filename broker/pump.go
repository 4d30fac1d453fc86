package broker

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"time"

	"github.com/weir-go/weir/internal/check"
)

// maxDemand bounds the demand of a source, so that sums cannot overflow.
const maxDemand = math.MaxInt32 / 2

// A pump is the Source of a Fetcher. One goroutine fetches as many messages as are
// requested and not fetched, and leaves them in a buffer for Next. The goroutine ends with
// Close, or with a permanent error.
type pump struct {
	fetcher Fetcher
	cfg     SourceConfig
	ctx     context.Context // of Fetch, until Close
	stop    context.CancelFunc

	more    chan struct{} // holds an element after Request
	ready   chan struct{} // holds an element while Next may have something to return
	stopped chan struct{} // closed when Fetch has returned for the last time
	force   chan struct{} // closed when the context of a Close has ended
	idle    chan struct{} // closed when the source is closing and nothing is held
	ended   chan struct{} // closed when the source has ended
	work    sync.WaitGroup

	mu      sync.Mutex // guards the fields below
	wanted  int        // requested and not settled
	held    map[*settlement]*holding
	buffer  []*Message // fetched, for Next
	failed  error      // the permanent error
	closing bool
	forced  bool
	result  error // of Close
}

// A holding is a message that was fetched and not settled.
type holding struct {
	message   *Message
	received  time.Time
	timer     *time.Timer // until the next Extend; nil without
	delivered bool        // by Next
	surplus   bool
}

var _ Source = (*pump)(nil)

// NewSource returns a source that fetches with f. Call Close to end it, which also closes
// f. The error wraps [ErrConfig], names every mistake, and f is not closed then.
//
// The source calls Fetch only while messages are wanted, with the number that is wanted.
// It gives back messages beyond that number. After an error it waits for 100 ms, then
// longer up to 10 s, with jitter. A Fetch that returns nothing without waiting is delayed
// too, up to a second. A panic of f counts as an error.
func NewSource(f Fetcher, c SourceConfig) (Source, error) {
	var bad check.Errors
	bad.That(f != nil, "f: got nil, want a Fetcher")
	bad.From("SourceConfig", c.Validate(), ErrConfig)
	if err := bad.Err(ErrConfig); err != nil {
		return nil, err
	}
	p := &pump{
		fetcher: f,
		cfg:     c.withDefaults(),
		more:    make(chan struct{}, 1),
		ready:   make(chan struct{}, 1),
		stopped: make(chan struct{}),
		force:   make(chan struct{}),
		idle:    make(chan struct{}),
		ended:   make(chan struct{}),
		held:    map[*settlement]*holding{},
	}
	p.ctx, p.stop = context.WithCancel(context.Background())
	go p.run()
	return p, nil
}

// Request implements Source.
func (p *pump) Request(n int) {
	if n < 1 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return
	}
	n = min(n, maxDemand-p.wanted)
	p.wanted += n
	p.cfg.Meter.count(func(s *Stats) { s.Wanted += n })
	if r, ok := p.fetcher.(Requester); ok {
		r.Request(n)
	}
	signal(p.more)
}

// Next implements Source.
func (p *pump) Next(ctx context.Context) (*Message, error) {
	for {
		m, err := p.poll(ctx)
		if m != nil || err != nil {
			return m, err
		}
		select {
		case <-p.ready:
		case <-ctx.Done():
		}
	}
}

// poll returns a message or an error if there is one now. It may have taken the element of
// ready, so it puts one back while there is something for others.
func (p *pump) poll(ctx context.Context) (*Message, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() {
		if len(p.buffer) > 0 || p.closing || p.failed != nil {
			signal(p.ready)
		}
	}()
	switch {
	case p.closing:
		return nil, io.EOF
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case len(p.buffer) > 0:
		m := p.buffer[0]
		p.buffer[0] = nil
		p.buffer = p.buffer[1:]
		p.held[m.settlement].delivered = true
		return m, nil
	default:
		return nil, p.failed
	}
}

// demandLocked returns the number of messages to fetch. Messages beyond the demand count
// against it until they are given back.
func (p *pump) demandLocked() int { return p.wanted - len(p.held) }

// settled forgets a message. It is called once for each message.
func (p *pump) settled(s *settlement, k Settlement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.held[s]
	if !ok {
		return
	}
	delete(p.held, s)
	if h.timer != nil {
		h.timer.Stop()
	}
	one := 1
	if h.surplus {
		one = 0
		signal(p.more) // there is room again
	}
	p.wanted -= one
	p.cfg.Meter.count(func(s *Stats) {
		s.Held--
		s.Wanted -= one
		s.Settled[k]++
	})
	if !h.delivered {
		p.dropLocked(h.message)
	}
	p.checkIdleLocked()
}

// dropLocked removes a message from the buffer that was settled there.
func (p *pump) dropLocked(m *Message) {
	for i, b := range p.buffer {
		if b == m {
			p.buffer = append(p.buffer[:i:i], p.buffer[i+1:]...)
			return
		}
	}
}

// report tells the meter and the hook of an error.
func (p *pump) report(err error) {
	p.cfg.Meter.errs(err)
	if p.cfg.OnError != nil {
		_ = guarded("hook", func() error { p.cfg.OnError(err); return nil })
	}
}

// signal puts an element into a channel that holds one, unless there is one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// permanent reports whether the source can go on after err.
func permanent(err error) bool { return errors.Is(err, ErrPermanent) }
