package rawend

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// eachField calls f for each field of a message. v is the value of a varint field. b holds the bytes of a
// length-delimited field, and is nil for other fields.
func eachField(m []byte, f func(num int, v uint64, b []byte)) error {
	for len(m) > 0 {
		num, typ, n := protowire.ConsumeTag(m)
		if n < 0 {
			return protowire.ParseError(n)
		}
		m = m[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(m)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(m)
			if b == nil {
				b = []byte{}
			}
		default:
			n = protowire.ConsumeFieldValue(num, typ, m)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		f(int(num), v, b)
		m = m[n:]
	}
	return nil
}

// putVarint appends a varint field, or nothing if v is zero.
func putVarint(m []byte, num int, v uint64) []byte {
	if v == 0 {
		return m
	}
	return protowire.AppendVarint(protowire.AppendTag(m, protowire.Number(num), protowire.VarintType), v)
}

func putBool(m []byte, num int, v bool) []byte {
	if v {
		return putVarint(m, num, 1)
	}
	return m
}

// putBytes appends a length-delimited field.
func putBytes(m []byte, num int, b []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(m, protowire.Number(num), protowire.BytesType), b)
}
