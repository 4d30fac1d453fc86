package admit_test

import (
	"context"
	"errors"
	"fmt"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/limit"
)

// A machine plays a script on a gate and on its model, and compares.
type machine struct {
	model

	gate    *admit.Gate
	calls   []*modelCall
	highest int  // limit so far
	beyond  bool // a dry run let more in, and they still run
	over    bool
}

// An op is one step: a kind and its argument.
type op struct{ Kind, Arg byte }

func (o op) String() string {
	return fmt.Sprintf("%s(%d)", [...]string{
		"acquire", "acquire by", "release", "cancel", "sleep", "limit", "queue", "dry run", "drain", "classes",
	}[o.kind()], o.Arg)
}

// kind: many calls, some releases, little else.
func (o op) kind() int {
	switch k := int(o.Kind % 32); {
	case k < 10:
		return 0
	case k < 13:
		return 1
	case k < 20:
		return 2
	case k < 23:
		return 3
	case k < 26:
		return 4
	case k < 28:
		return 5
	case k == 28:
		return 6
	case k == 29:
		return 9
	case k == 30:
		return 7
	case o.Arg < 32: // draining ends the fun, so it is rare
		return 8
	default:
		return 0
	}
}

// play plays a script and returns what went wrong first. It runs in a bubble.
func play(script []op) error {
	one, err := limit.NewFixed(1)
	if err != nil {
		return err
	}
	g, err := admit.New(admit.WithLimit(one), admit.WithQueue(admit.QueueConfig{MaxWait: modelMaxWait}))
	if err != nil {
		return err
	}
	m := &machine{gate: g, highest: 1}
	m.limit, m.want.Name = 1, "default"
	m.queue.MaxWait = modelMaxWait
	defer m.end()
	for i, o := range script {
		if err := m.step(o); err != nil {
			return fmt.Errorf("step %d, %v: %w", i, o, err)
		}
		synctest.Wait()
		if err := m.check(); err != nil {
			return fmt.Errorf("after step %d, %v: %w", i, o, err)
		}
	}
	return m.end()
}

func (m *machine) step(o op) error {
	arg := int(o.Arg)
	switch o.kind() {
	case 0:
		m.call(modelCall{class: admit.Class(arg % 4), tenant: []string{"", "a", "b"}[arg/4%3], cost: 1 + max(0, arg/12%8-5)}, 0)
	case 1:
		m.call(modelCall{class: admit.Class(arg % 4), cost: 1}, time.Duration(arg/4)*ms-500*time.Microsecond)
	case 2:
		m.release(arg)
	case 3:
		if len(m.calls) > 0 {
			c := m.calls[arg%len(m.calls)]
			c.cancel()
			m.cancel(c)
		}
	case 4:
		time.Sleep(time.Duration(arg) * ms)
		m.sleep(time.Duration(arg) * ms)
		m.dispatched = false
	case 5:
		return m.relimit(arg % 6)
	case 6:
		return m.requeue(arg)
	case 7:
		m.dryRun = arg%2 == 0
		if err := m.gate.Update(admit.WithDryRun(m.dryRun)); err != nil {
			return err
		}
		m.updated()
	case 9:
		return m.reclass(arg)
	default:
		m.gate.Drain()
		m.drain()
	}
	return nil
}

// reclass gives classes other shares and bounds.
func (m *machine) reclass(arg int) error {
	shares := [...][4]admit.ClassConfig{
		{},
		{admit.Critical: {Share: 0.5}, admit.Background: {Max: 0.25}},
		{admit.Default: {Max: 0.5}, admit.Sheddable: {Share: 0.4, Max: 0.4}},
		{admit.Default: {Share: 0.3}, admit.Critical: {Share: 0.3}, admit.Background: {Share: 0.3}},
	}
	counted := m.sharing()
	before := m.classes
	if m.classes = shares[arg%len(shares)]; m.sharing() && !counted {
		m.demand = [4]modelDemand{}
	}
	var opts []admit.Option
	for c, cfg := range m.classes {
		if cfg.Share > 0 && before[c].Share == 0 {
			m.came[c] = m.now
		}
		opts = append(opts, admit.WithClassConfig(admit.Class(c), cfg))
	}
	m.updated()
	return m.gate.Update(opts...)
}

func (m *machine) call(what modelCall, timeout time.Duration) {
	c := &what
	ctx, cancel := context.WithCancel(context.Background())
	if timeout != 0 {
		ctx, cancel = context.WithTimeout(context.Background(), timeout)
		c.deadline, c.expired = m.now+timeout, timeout < 0
	}
	c.cancel = cancel
	c.real = startCall(ctx, m.gate, admit.Call{Class: c.class, Tenant: c.tenant, Cost: c.cost})
	m.acquire(c)
	m.calls = append(m.calls, c)
	time.Sleep(time.Microsecond)
	m.sleep(time.Microsecond)
}

func (m *machine) release(i int) {
	var running []*modelCall
	for _, c := range m.calls {
		if c.verdict == runs {
			running = append(running, c)
		}
	}
	if len(running) == 0 {
		return
	}
	c := running[i%len(running)]
	c.real.permit.Release(admit.Overload)
	c.real.permit.Release(admit.Success) // does nothing
	m.ended(c)
	m.dispatch()
}

// ended counts the outcome as the gate should: an Overload of a call that waited
// here for longer than it ran is not the server's fault.
func (m *machine) ended(c *modelCall) {
	ran := m.now - c.since - c.took
	if c.took > ran {
		m.want.Ended[admit.Ignored]++
	} else {
		m.want.Ended[admit.Overload]++
	}
	m.ran += ran
	m.want.RunningSeconds = m.ran.Seconds()
	m.stop(c)
	c.verdict = ended
}

const ended = "ended"

// relimit sets a new limit; 0 is wrong and must change nothing.
func (m *machine) relimit(n int) error {
	err := m.gate.Update(admit.WithLimit(&law{initial: n, next: func(limit.Window) int { return n }}))
	if n == 0 {
		if !errors.Is(err, admit.ErrConfig) {
			return fmt.Errorf("limit 0: got %w, want an error that wraps ErrConfig", err)
		}
		return nil
	}
	m.limit, m.highest = n, max(m.highest, n)
	m.updated()
	return err
}

func (m *machine) requeue(arg int) error {
	if arg%16 == 15 {
		m.queue, m.noQueue = admit.QueueConfig{}, true
		m.updated()
		return m.gate.Update(admit.WithoutQueue())
	}
	m.noQueue = false
	m.queue = admit.QueueConfig{
		Capacity: []int{0, 1, 2, 3, 16}[arg/9%5],
		MaxWait:  modelMaxWait,
		Policy:   admit.Policy(arg % 2),
	}
	if m.queue.Policy == admit.Block && arg >= 128 {
		m.queue.MaxWait = 0 // no bound
	}
	m.updated()
	return m.gate.Update(admit.WithQueue(m.queue))
}

// check compares the gate with the model, and with what must hold in any case.
func (m *machine) check() error {
	for i, c := range m.calls {
		if got := c.real.state(); got != c.verdict && (c.verdict != ended || got != runs) {
			return fmt.Errorf("call %d (%v): got %q, want %q", i, c.class, got, c.verdict)
		}
		if c.verdict != waits && c.real.took != c.took {
			return fmt.Errorf("call %d (%v): got it to take %v, want %v", i, c.class, c.real.took, c.took)
		}
	}
	want := m.want
	want.Limit, want.InFlight, want.Queue, want.QueueCapacity = m.limit, m.inFlight, len(m.waiting), m.capacity()
	want.Draining, want.DryRun = m.draining, m.dryRun
	if want.MaxWait = m.queue.MaxWait; m.noQueue {
		want.MaxWait = 0
	}
	for class := range m.classes {
		want.Held[class] = m.has(admit.Class(class))
		want.Tenants += m.named(admit.Class(class))
	}
	for class := range m.state {
		want.Standing[class] = m.state[class].stands
	}
	want.Classes, want.Waiting = classNames, [admit.MaxClasses]int{}
	for _, c := range m.waiting {
		want.Waiting[c.class]++
	}
	got := m.gate.Stats()
	if got != want {
		return fmt.Errorf("stats: got %+v, want %+v", got, want)
	}
	return m.invariants(got)
}

func (m *machine) invariants(s admit.Stats) error {
	m.beyond = s.DryRun || m.beyond && s.InFlight > m.highest
	if s.InFlight < 0 || s.InFlight > m.highest && !m.beyond {
		return fmt.Errorf("in flight: got %d, want 0 to %d", s.InFlight, m.highest)
	}
	// Who may have a permit also depends on how long others have held theirs. The gate looks
	// again when the next of them comes back, so one must be held.
	if s.Queue > 0 && s.InFlight == 0 {
		return fmt.Errorf("got %d waiting and none in flight, want a permit that will come back", s.Queue)
	}
	if s.Queue > 0 && m.dispatched && s.InFlight < s.Limit && m.next() >= 0 && m.inFlight+m.charge(m.waiting[m.next()]) <= m.limit {
		return fmt.Errorf("got %d waiting and %d in flight, want nobody to wait below the limit of %d", s.Queue, s.InFlight, s.Limit)
	}
	s.InFlight = len(m.running) // calls, not permits
	if got, want := accounted(s)-m.pretended, len(m.calls); got != want {
		return fmt.Errorf("calls accounted for: got %d, want %d: %+v", got, want, s)
	}
	return nil
}

// accounted adds up what has become of every call.
func accounted(s admit.Stats) int {
	n := s.InFlight + s.Queue + int(s.Left)
	for _, ended := range s.Ended {
		n += int(ended)
	}
	for _, class := range &s.Refused {
		for _, refused := range class {
			n += int(refused)
		}
	}
	return n
}

// end ends every call, and fails if the gate is not whole then.
func (m *machine) end() error {
	if m.over {
		return nil
	}
	m.over = true
	for _, c := range m.calls {
		c.cancel()
	}
	synctest.Wait()
	for _, c := range m.calls {
		c.real.permit.Release(admit.Ignored)
	}
	if s := m.gate.Stats(); s.InFlight != 0 || s.Queue != 0 {
		return fmt.Errorf("at the end: got %d in flight and %d waiting, want none", s.InFlight, s.Queue)
	}
	if m.draining {
		return nil
	}
	return m.whole()
}

// whole takes every permit of a gate at rest, and one more.
func (m *machine) whole() error {
	if err := m.reclass(0); err != nil {
		return err
	}
	if err := m.gate.Update(admit.WithDryRun(false), admit.WithoutQueue()); err != nil {
		return err
	}
	for i := range m.limit + 1 {
		p, err := m.gate.Acquire(context.Background(), admit.Call{})
		if (err == nil) != (i < m.limit) {
			return fmt.Errorf("permit %d of %d at the end: got error %w", i+1, m.limit, err)
		}
		defer p.Release(admit.Ignored)
	}
	return nil
}
