package rawend

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// The values of Ending.
const (
	endComplete = iota
	endError
	endGoingAway
	endNothing
	endLeave
)

// A script is a decoded Script.
type script struct {
	raw           []byte // as it came
	id            string
	send, receive map[int]int64 // by field number; nil if absent
	requests      []int64
	message       string // of the error at the end
	lockstep      bool
	handshakeMs   int64
	heartbeatMs   int64
	lingerMs      int64
}

func decodeScript(b []byte) (*script, error) {
	s := &script{raw: b}
	var inner error
	err := eachField(b, func(num int, v uint64, f []byte) {
		var err error
		switch num {
		case 1:
			s.id = string(f)
		case 2:
			s.send = map[int]int64{}
			err = eachField(f, func(num int, v uint64, f []byte) {
				if s.send[num] = int64(v); num == 7 {
					s.message = string(f)
				}
			})
		case 3:
			s.receive = map[int]int64{}
			err = eachField(f, s.decodeReceive)
		case 4:
			s.lockstep = v != 0
		case 5:
			s.handshakeMs = int64(v)
		case 6:
			s.heartbeatMs = int64(v)
		case 7:
			s.lingerMs = int64(v)
		}
		if err != nil {
			inner = err
		}
	})
	if err == nil {
		err = inner
	}
	return s, err
}

func (s *script) decodeReceive(num int, v uint64, f []byte) {
	if num != 2 {
		s.receive[num] = int64(v)
		return
	}
	if f == nil {
		s.requests = append(s.requests, int64(v))
	}
	for len(f) > 0 { // packed
		v, n := protowire.ConsumeVarint(f)
		if n < 0 {
			return
		}
		s.requests = append(s.requests, int64(v))
		f = f[n:]
	}
}

// orDefault turns an empty script into the default one.
func (s *script) orDefault() *script {
	if s.send == nil && s.receive == nil {
		s.send = map[int]int64{5: endNothing}
		s.receive = map[int]int64{1: 16}
	}
	return s
}

// The fields of Send and Receive.
const (
	sendCount int = 1 + iota
	sendPayload
	sendSenders
	sendPace
	sendEnding
	sendCode
	_ // its message
	sendFirstRequest
	sendStall
	sendMaxCredit
	sendReject
	sendGiveUp
	sendOversizeBefore
	sendOversizeBytes
)

const (
	receiveWindow int = 1 + iota
	_                 // requests
	receiveBytes
	receiveMaxMessage
	receiveTake
	receiveHold
	receivePace
	receiveCancelAfter
	_ // cancels; a second Cancel changes nothing
	receiveDrainAfter
	receiveRounds
	receiveLeaveAfter
)

// at reports whether an optional field is present and equal to n.
func (s *script) at(field int, n int64) bool {
	v, ok := s.receive[field]
	return ok && v == n
}

// The values of EndKind.
const (
	kindOfComplete = 1 + iota
	kindOfGoingAway
	kindOfCanceled
	kindOfFailed
)

// A report is a Report before it is encoded.
type report struct {
	id                      string
	sent, tooLarge, givenUp int64
	received, outOfOrder    int64
	burned                  int64
	sending, receiving      error // nil if the direction ended in order
	sends, receives         bool
}

func (r *report) encode() []byte {
	b := putBytes(nil, 1, []byte(r.id))
	for i, v := range []int64{r.sent, r.tooLarge, r.givenUp} {
		b = putVarint(b, 2+i, uint64(v))
	}
	if r.sends {
		b = putBytes(b, 5, encodeEnd(r.sending))
	}
	for i, v := range []int64{r.received, r.outOfOrder, r.burned} {
		b = putVarint(b, 6+i, uint64(v))
	}
	if r.receives {
		b = putBytes(b, 9, encodeEnd(r.receiving))
	}
	return b
}

func encodeEnd(err error) []byte {
	kind, e := kindOf(err)
	b := putVarint(nil, 1, uint64(kind))
	if e != nil {
		b = putVarint(b, 2, uint64(e.code))
		b = putBytes(putBytes(b, 3, []byte(e.reason)), 4, []byte(e.message))
	}
	return putVarint(b, 5, 1)
}
