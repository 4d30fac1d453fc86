package rawend

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// An element is a received element.
type element struct {
	number int64
	size   int64
}

// encodeElement returns an encoded RunRequest or RunResponse, which is also the content of an element in a
// Frame.
func encodeElement(number int64, payload []byte) []byte {
	b := putVarint(nil, 1, uint64(number))
	if len(payload) > 0 {
		b = putBytes(b, 2, payload)
	}
	return b
}

func decodeElement(b []byte) (e element, err error) {
	err = eachField(b, func(num int, v uint64, b []byte) {
		if num == 1 {
			e.number = int64(v)
		}
	})
	e.size = int64(len(b))
	return e, err
}

// A message is a decoded message of a stream.
type message struct {
	c        *control // nil if there is none
	elements []element
	batch    bool
	script   []byte // the setup element of a client's Open
}

// decodeEmbedded reads a RunRequest or RunResponse.
func decodeEmbedded(b []byte) (m message, err error) {
	var e element
	var inner error
	err = eachField(b, func(num int, v uint64, f []byte) {
		switch {
		case num == 1:
			e.number = int64(v)
		case num == 3 && f != nil:
			m.script = f
		case num == 15 && f != nil:
			m.c, inner = decodeControl(f)
			e.size -= int64(protowire.SizeTag(15) + protowire.SizeBytes(len(f)))
		}
	})
	if err == nil {
		err = inner
	}
	e.size += int64(len(b))
	if m.c == nil || m.c.withData && m.c.kind != kindOpen {
		m.elements = []element{e}
	}
	return m, err
}

// decodeFrame reads a Frame.
func decodeFrame(b []byte) (m message, err error) {
	var inner error
	var data [][]byte
	note := func(err error) {
		if err != nil {
			inner = err
		}
	}
	err = eachField(b, func(num int, _ uint64, f []byte) {
		var err error
		switch num {
		case 1, 4:
			m.c, err = decodeControl(f)
		case 2:
			data = append(data, f)
		case 3:
			m.batch = true
			err = eachField(f, func(num int, _ uint64, f []byte) {
				if num == 1 {
					data = append(data, f)
				}
			})
		}
		note(err)
	})
	if m.c != nil && m.c.kind == kindOpen && len(data) > 0 {
		m.script, data = data[0], nil
	}
	for _, d := range data {
		e, err := decodeElement(d)
		note(err)
		m.elements = append(m.elements, e)
	}
	if m.c == nil && len(data) == 0 {
		m.c = &control{} // of an unknown kind
	}
	if err == nil {
		err = inner
	}
	return m, err
}
