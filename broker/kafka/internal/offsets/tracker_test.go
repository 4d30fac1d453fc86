package offsets_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-go/weir/broker/kafka/internal/offsets"
)

// A model does the same as a Tracker, slowly: it keeps every record.
type model struct {
	records []record
}

type record struct {
	offset   int64
	epoch    int32
	finished bool
}

func (m *model) add(offset int64, epoch int32) bool {
	if n := len(m.records); n > 0 && offset <= m.records[n-1].offset {
		return false
	}
	m.records = append(m.records, record{offset: offset, epoch: epoch})
	return true
}

func (m *model) finish(offset int64) bool {
	i := slices.IndexFunc(m.records, func(r record) bool { return r.offset == offset })
	if i < 0 || m.records[i].finished {
		return false
	}
	m.records[i].finished = true
	return true
}

// oldest returns the index of the oldest unfinished record.
func (m *model) oldest() int {
	if i := slices.IndexFunc(m.records, func(r record) bool { return !r.finished }); i >= 0 {
		return i
	}
	return len(m.records)
}

func (m *model) committable() offsets.Mark {
	i := m.oldest()
	if i == 0 {
		return offsets.Mark{}
	}
	return offsets.Mark{Next: m.records[i-1].offset + 1, Epoch: m.records[i-1].epoch}
}

func (m *model) unfinished() (n int) {
	for _, r := range m.records {
		if !r.finished {
			n++
		}
	}
	return n
}

// agree fails if the tracker and the model differ.
func agree(t interface {
	Fatalf(format string, args ...any)
}, tracker *offsets.Tracker, m *model,
) {
	if got, want := tracker.Committable(), m.committable(); got != want {
		t.Fatalf("Committable = %+v, want %+v", got, want)
	}
	if got, want := tracker.Span(), len(m.records)-m.oldest(); got != want {
		t.Fatalf("Span = %d, want %d", got, want)
	}
	if got, want := tracker.Unfinished(), m.unfinished(); got != want {
		t.Fatalf("Unfinished = %d, want %d", got, want)
	}
}

func TestTrackerDoesAsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var tracker offsets.Tracker
		var m model
		last := rapid.Int64Range(0, 1<<40).Draw(t, "start") - 1
		epoch := int32(0)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				last += rapid.Int64Range(1, 3).Draw(t, "gap")
				epoch += int32(rapid.IntRange(0, 1).Draw(t, "election"))
				if got, want := tracker.Add(last, epoch), m.add(last, epoch); got != want {
					t.Fatalf("Add(%d) = %t, want %t", last, got, want)
				}
			},
			"add below": func(t *rapid.T) {
				if len(m.records) == 0 {
					t.Skip("no record yet")
				}
				offset := last - rapid.Int64Range(0, 5).Draw(t, "below")
				if tracker.Add(offset, epoch) {
					t.Fatalf("Add(%d) = true, want false: %d was added before", offset, last)
				}
			},
			"finish": func(t *rapid.T) {
				if len(m.records) == 0 {
					t.Skip("no record yet")
				}
				// Mostly a record, in any order and more than once. Sometimes a gap.
				offset := rapid.SampledFrom(m.records).Draw(t, "record").offset + rapid.Int64Range(0, 1).Draw(t, "beside")
				if got, want := tracker.Finish(offset), m.finish(offset); got != want {
					t.Fatalf("Finish(%d) = %t, want %t", offset, got, want)
				}
			},
			"": func(t *rapid.T) { agree(t, &tracker, &m) },
		})
	})
}

// Whatever the order, the last record to finish commits everything, and nothing is kept.
func TestTrackerEndsEmpty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "records")
		order := rapid.Permutation(numbers(n)).Draw(t, "order")
		var tracker offsets.Tracker
		for i := range n {
			tracker.Add(int64(i), 1)
		}
		for _, offset := range order {
			if !tracker.Finish(offset) {
				t.Fatalf("Finish(%d) = false, want true", offset)
			}
		}
		if got, want := tracker.Committable(), (offsets.Mark{Next: int64(n), Epoch: 1}); got != want {
			t.Errorf("Committable = %+v, want %+v", got, want)
		}
		if tracker.Span() != 0 || tracker.Unfinished() != 0 {
			t.Errorf("Span = %d, Unfinished = %d, want 0", tracker.Span(), tracker.Unfinished())
		}
	})
}

func numbers(n int) []int64 {
	s := make([]int64, n)
	for i := range s {
		s[i] = int64(i)
	}
	return s
}

// FuzzTracker reads the input as a schedule. An even byte adds the next offset after a gap,
// an odd one finishes a record.
func FuzzTracker(f *testing.F) {
	f.Add([]byte{0, 2, 4, 3, 5, 1})
	f.Add([]byte{8, 8, 8, 1, 1, 1})
	f.Fuzz(func(t *testing.T, schedule []byte) {
		if len(schedule) > 1<<10 {
			t.Skip("the model is quadratic")
		}
		var tracker offsets.Tracker
		var m model
		last, committed := int64(-1), int64(0)
		for _, b := range schedule {
			offset := last + int64(b>>6) + 1
			if b&1 == 0 {
				last = offset
				if got, want := tracker.Add(offset, int32(b)), m.add(offset, int32(b)); got != want {
					t.Fatalf("Add(%d) = %t, want %t", offset, got, want)
				}
			} else {
				offset = last - int64(b>>1)
				if got, want := tracker.Finish(offset), m.finish(offset); got != want {
					t.Fatalf("Finish(%d) = %t, want %t", offset, got, want)
				}
			}
			agree(t, &tracker, &m)
			if next := tracker.Committable().Next; next < committed {
				t.Fatalf("Committable went back from %d to %d", committed, next)
			}
			committed = tracker.Committable().Next
		}
	})
}

// A slow record at the front must not make each finished one behind it cost more.
func BenchmarkTracker(b *testing.B) {
	for name, span := range map[string]int{"span=64": 64, "span=4096": 4096} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var tracker offsets.Tracker
			for i := range span {
				tracker.Add(int64(i), 0)
			}
			next := int64(span)
			for b.Loop() {
				tracker.Add(next, 0)
				tracker.Finish(next - int64(span))
				next++
			}
		})
	}
}
