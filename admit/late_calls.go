package admit

import "sync/atomic"

// lateCalls tells for each class whether calls that waited end after their deadlines. The
// shortest call says only what a call takes at least. If most take longer, a queue serves
// each call just too late, and the server works for nothing. It takes no lock.
type lateCalls struct {
	classes [MaxClasses]atomic.Uint64 // share of late calls, and above it whether it was much
}

const (
	lateWhole  = 1 << 16        // a share of 1
	lateMemory = 32             // calls
	lateMuch   = lateWhole / 8  // the share from which calls are late
	lateLittle = lateWhole / 64 // the share below which they are not any more
	lateFlag   = 1 << 32
)

// see notes the end of a call that waited and had a deadline.
func (l *lateCalls) see(c Class, late bool) {
	if c >= MaxClasses {
		return
	}
	for {
		old := l.classes[c].Load()
		share, flag := old&(lateFlag-1), old&lateFlag
		share -= share / lateMemory
		if late {
			share += lateWhole / lateMemory
		}
		switch {
		case share >= lateMuch:
			flag = lateFlag
		case share < lateLittle:
			flag = 0
		}
		if l.classes[c].CompareAndSwap(old, share|flag) {
			return
		}
	}
}

// forget forgets the late calls of a class. Call it when a queue begins, because they say
// nothing about its calls.
func (l *lateCalls) forget(c Class) {
	if c < MaxClasses {
		l.classes[c].Store(0)
	}
}

// are reports whether the calls of a class that wait end too late.
func (l *lateCalls) are(c Class) bool { return c < MaxClasses && l.classes[c].Load()&lateFlag != 0 }
