package window_test

import (
	"flag"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/broker/rabbitmq/internal/window"
)

// A model is a broker, a program and the two directions of the wire between them. It counts
// as the broker does, and compares that with what the program has asked for.
type model struct {
	w window.Window

	want     int // requested, and not settled as far as the program knows
	prefetch int // of the broker's consumer; 0 without
	epoch    int // of the consumers, from 1
	running  int // the epoch of the consumer that the source believes in; 0 without

	unacked  []int // the epoch of each message that is unacknowledged at the broker
	sent     []int // deliveries on their way
	settled  []int // settlements on their way
	held     []int // deliveries that the program has
	begun    []int // deliveries whose settlement may be sent
	written  []int // deliveries whose settlement was sent, while the source has not noted it
	stale    int
	unproven int // noted settlements of orphans that no call has proved
}

// check compares the broker's count with the demand.
func (m *model) check(t *rapid.T) {
	if n := len(m.unacked); n+m.stale > m.want {
		t.Fatalf("the broker counts %d unacknowledged messages, %d are held of lost channels, want at most %d together", n, m.stale, m.want)
	}
	if n, want := m.w.Held(), len(m.held)+len(m.begun)+len(m.written)+m.stale; n != want {
		t.Fatalf("Held() = %d, want %d", n, want)
	}
	if m.running == 0 {
		return
	}
	active, orphans := 0, m.unproven
	for _, list := range [][]int{m.held, m.begun, m.written} {
		for _, e := range list {
			if e != m.running {
				orphans++
			}
		}
	}
	for _, e := range append(m.begun, m.written...) {
		if e == m.running {
			active++
		}
	}
	if m.w.Quiet() && (len(m.sent) > 0 || slices.Contains(m.settled, m.running)) {
		t.Fatalf("Quiet() = true with deliveries %v and settlements %v on their way", m.sent, m.settled)
	}
	w := m.w // a copy
	if got, want := w.Begin(), m.prefetch+orphans+m.stale+active < m.want; got != want {
		t.Fatalf("Begin() = %v, want %v", got, want)
	}
}

// push has the broker send what the prefetch count allows, at once. The queue is never empty.
func (m *model) push() {
	own := 0
	for _, e := range m.unacked {
		if e == m.epoch {
			own++
		}
	}
	for ; own < m.prefetch; own++ {
		m.unacked, m.sent = append(m.unacked, m.epoch), append(m.sent, m.epoch)
	}
}

// process has the broker read n settlements. It may send the next message at once.
func (m *model) process(n int) {
	for ; n > 0 && len(m.settled) > 0; n-- {
		e := m.settled[0]
		m.settled = m.settled[1:]
		for i, u := range m.unacked {
			if u == e {
				m.unacked = append(m.unacked[:i], m.unacked[i+1:]...)
				break
			}
		}
		m.push()
	}
}

func (m *model) receive(n int) {
	for ; n > 0 && len(m.sent) > 0; n-- {
		m.held = append(m.held, m.sent[0])
		m.sent = m.sent[1:]
		m.w.Deliver()
	}
}

// call is a call that the broker answers after all that was sent before.
func (m *model) call() {
	m.process(len(m.settled))
	m.w.Prove(m.unproven)
	m.unproven = 0
}

// TestTheBrokerNeverCountsMoreThanIsWanted runs random schedules of a program, a source and a
// broker. The settlement of an orphan returns only when Fits, as in the source.
func TestTheBrokerNeverCountsMoreThanIsWanted(t *testing.T) {
	if err := flag.Set("rapid.steps", "150"); err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		m := &model{}
		cancel := func() {
			m.prefetch = 0
			m.call()
			m.receive(len(m.sent))
			m.w.Cancel()
			m.running = 0
		}
		t.Repeat(map[string]func(*rapid.T){
			"": m.check,
			"request": func(t *rapid.T) {
				n := rapid.IntRange(1, 4).Draw(t, "n")
				m.want += n
				m.w.Request(n)
			},
			"process": func(t *rapid.T) { m.process(rapid.IntRange(1, 9).Draw(t, "n")) },
			"receive": func(t *rapid.T) {
				if m.running != 0 {
					m.receive(rapid.IntRange(1, 9).Draw(t, "n"))
				}
			},
			"consume": func(t *rapid.T) {
				if m.running != 0 && rapid.IntRange(0, 9).Draw(t, "luck") > 0 {
					return
				}
				cancel()
				p := m.w.Start()
				if p == 0 {
					return
				}
				m.call() // Qos
				m.epoch++
				m.prefetch, m.running = p, m.epoch
				m.push()
				if !m.w.Fits() {
					t.Fatalf("the commitment is larger than the demand after the start of a consumer")
				}
			},
			"begin": func(t *rapid.T) {
				if len(m.held) == 0 {
					t.Skip("nothing is held")
				}
				i := rapid.IntRange(0, len(m.held)-1).Draw(t, "i")
				e := m.held[i]
				if e == m.running && !m.w.Begin() {
					cancel() // what the source does then
				}
				m.held = append(m.held[:i], m.held[i+1:]...)
				m.begun = append(m.begun, e)
			},
			"write": func(t *rapid.T) {
				if len(m.begun) == 0 {
					t.Skip("no settlement has begun")
				}
				m.written, m.settled = append(m.written, m.begun[0]), append(m.settled, m.begun[0])
				m.begun = m.begun[1:]
			},
			"finish": func(t *rapid.T) {
				if len(m.written) == 0 {
					t.Skip("no settlement was sent")
				}
				e := m.written[0]
				m.written = m.written[1:]
				if e == m.running {
					m.w.EndActive()
				} else {
					m.w.EndOrphan()
					m.unproven++
					if !m.w.Fits() {
						m.call()
					}
				}
				m.want--
			},
			"lose": func(t *rapid.T) {
				if rapid.IntRange(0, 9).Draw(t, "luck") > 0 {
					return
				}
				buffered := rapid.IntRange(0, len(m.held)).Draw(t, "buffered")
				m.stale += len(m.held) - buffered + len(m.begun) + len(m.written)
				m.w.Lose(buffered)
				m.unacked, m.sent, m.settled, m.held, m.begun, m.written = nil, nil, nil, nil, nil, nil
				m.prefetch, m.running, m.unproven = 0, 0, 0
			},
			"end stale": func(t *rapid.T) {
				if m.stale == 0 {
					t.Skip("nothing is stale")
				}
				m.stale--
				m.want--
				m.w.EndStale()
			},
		})
	})
}

// A program that requests before it acknowledges needs no second consumer.
func TestLevelDemandIsNeverShortForLong(t *testing.T) {
	for _, demand := range []int{1, 2, 7, 8, 64, 1000} {
		var w window.Window
		w.Request(demand)
		if got := w.Start(); got != demand {
			t.Fatalf("demand %d: Start() = %d, want it", demand, got)
		}
		for range demand {
			w.Deliver()
		}
		w.Arm()
		for i := range 1000 {
			w.Request(1)
			if w.Urgent() {
				t.Fatalf("demand %d: Urgent() = true after one more request", demand)
			}
			if i%10 == 5 && w.Tick() {
				t.Fatalf("demand %d: Tick() = true after one more request", demand)
			}
			if !w.Begin() {
				t.Fatalf("demand %d: Begin() = false after one more request", demand)
			}
			w.EndActive()
			w.Deliver()
			if i%10 == 9 && w.Tick() {
				t.Fatalf("demand %d: Tick() = true while the demand is level", demand)
			}
		}
	}
}

// Demand that has grown for good leads to a larger consumer after a few ticks.
func TestGrowthIsNoticed(t *testing.T) {
	for _, more := range []int{1, 2, 5} {
		var w window.Window
		w.Request(50)
		w.Start()
		w.Request(more)
		if w.Short() {
			t.Errorf("more %d: Short() = true before the broker has sent what it may", more)
		}
		for range 50 {
			w.Deliver()
		}
		if !w.Short() {
			t.Fatalf("more %d: Short() = false", more)
		}
		w.Arm()
		ticks := 1
		for !w.Tick() && ticks < 100 {
			ticks++
		}
		if ticks > 5 {
			t.Errorf("more %d: %d ticks, want at most 5", more, ticks)
		}
	}
	var w window.Window
	w.Request(1)
	if !w.Urgent() {
		t.Error("Urgent() = false for the first demand, want true")
	}
	w.Start()
	w.Deliver()
	w.Request(8)
	if !w.Urgent() {
		t.Error("Urgent() = false for nine times the prefetch count, want true")
	}
}

func TestPrefetchHasBounds(t *testing.T) {
	var w window.Window
	if got := w.Start(); got != 0 {
		t.Errorf("Start() without demand = %d, want 0", got)
	}
	for range 5 {
		w.Request(1 << 30)
	}
	if got := w.Start(); got != window.MaxPrefetch {
		t.Errorf("Start() = %d, want %d", got, window.MaxPrefetch)
	}
	if w.Short() {
		t.Error("Short() = true with the largest prefetch count")
	}
	if w.Wanted() < 1<<29 {
		t.Errorf("Wanted() = %d after 5 requests of 1<<30", w.Wanted())
	}
}
