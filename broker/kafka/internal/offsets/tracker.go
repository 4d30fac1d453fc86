// Package offsets finds the offset that may be committed while the records of a partition
// finish in any order.
package offsets

import (
	"cmp"
	"slices"
)

// A Tracker follows the records of one partition during one assignment, from their delivery
// until they are finished. Kafka stores one offset a partition, and everything below it
// counts as consumed. So only the offset up to which every record is finished may be stored.
//
// A Tracker has no lock and no clock. The zero value is ready for use.
type Tracker struct {
	// entries[head:] are the records from the oldest unfinished one to the newest one, by
	// offset. Offsets have gaps where the log was compacted, and at transactions.
	entries []entry
	head    int
	open    int // unfinished entries
	mark    Mark
}

type entry struct {
	Mark
	finished bool
}

// A Mark is the place behind a record, as a commit stores it. The zero Mark stands before
// every record.
type Mark struct {
	Next  int64 // the offset of the record, plus one
	Epoch int32 // the epoch of the partition's leader that wrote the record
}

// Add takes in a record that is about to be delivered. It returns false if the offset is not
// above all offsets before it. The log was then cut and written anew, and needs a new
// Tracker.
func (t *Tracker) Add(offset int64, epoch int32) bool {
	if offset < t.newest() {
		return false
	}
	t.entries = append(t.entries, entry{Mark: Mark{Next: offset + 1, Epoch: epoch}})
	t.open++
	return true
}

// newest returns the least offset that may follow.
func (t *Tracker) newest() int64 {
	if n := len(t.entries); n > t.head {
		return t.entries[n-1].Next
	}
	return t.mark.Next
}

// Finish notes that a record is finished. It returns false if the record was not added or
// was finished before.
func (t *Tracker) Finish(offset int64) bool {
	live := t.entries[t.head:]
	i, found := slices.BinarySearchFunc(live, offset, func(e entry, offset int64) int { return cmp.Compare(e.Next-1, offset) })
	if !found || live[i].finished {
		return false
	}
	live[i].finished = true
	t.open--
	for t.head < len(t.entries) && t.entries[t.head].finished {
		t.mark = t.entries[t.head].Mark
		t.head++
	}
	t.compact()
	return true
}

// compact frees the place of entries that are done with. For each entry that it moves, it
// frees one at least.
func (t *Tracker) compact() {
	live := len(t.entries) - t.head
	if live > t.head {
		return
	}
	copy(t.entries, t.entries[t.head:])
	t.entries, t.head = t.entries[:live], 0
}

// Committable returns the mark below which every record is finished. It never goes back.
func (t *Tracker) Committable() Mark { return t.mark }

// Span returns the number of records from the oldest unfinished one to the newest one.
func (t *Tracker) Span() int { return len(t.entries) - t.head }

// Unfinished returns the number of records that were added and not finished.
func (t *Tracker) Unfinished() int { return t.open }
