package memory

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// codecOf returns a registered codec, of either version of gRPC's interface. gRPC prefers the
// first version, too.
func codecOf(name string) encoding.CodecV2 {
	if c := encoding.GetCodec(name); c != nil {
		return wholeMessages{c}
	}
	return encoding.GetCodecV2(name)
}

// wholeMessages is a codec of the first version, which knows no buffers.
type wholeMessages struct{ encoding.Codec }

func (c wholeMessages) Marshal(v any) (mem.BufferSlice, error) {
	data, err := c.Codec.Marshal(v)
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

func (c wholeMessages) Unmarshal(data mem.BufferSlice, v any) error {
	return c.Codec.Unmarshal(data.Materialize(), v)
}
