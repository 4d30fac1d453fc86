package memory_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"

	"github.com/weir-go/weir/interceptors/memory"
)

// firstVersion is a codec of the first version of gRPC's interface, as vtprotobuf has one.
type firstVersion struct{}

func (firstVersion) Name() string                       { return "weirtest-first" }
func (firstVersion) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (firstVersion) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// A codec of the first version is used and counted like one of the second.
func TestBytesWithACodecOfTheFirstVersion(t *testing.T) {
	encoding.RegisterCodec(firstVersion{})
	b := newBytes(t, 1<<20)
	codec := memory.Counting(b, "weirtest-first")
	if got := codec.Name(); got != "weirtest-first" {
		t.Errorf("got the name %q, want weirtest-first", got)
	}
	want := strings.Repeat("x", 5000)
	out, err := codec.Marshal(&want)
	if err != nil {
		t.Fatal(err)
	}
	wantBytes(t, b, "encoded", 1, 5002, 5002)
	var got string
	if err := codec.Unmarshal(append(mem.BufferSlice{mem.SliceBuffer(" ")}, out...), &got); err != nil || got != want {
		t.Errorf("got %d bytes, %v, want the same %d", len(got), err, len(want))
	}
	out.Free()
	wantBytes(t, b, "when it is written", 0, 0, 0)
	var wrong *json.UnsupportedTypeError
	if _, err := codec.Marshal(func() {}); !errors.As(err, &wrong) {
		t.Errorf("a message that has no encoding: got %v, want the error of the codec", err)
	}
	wantBytes(t, b, "after an error", 0, 0, 0)
}
