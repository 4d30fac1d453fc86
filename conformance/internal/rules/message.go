package rules

import (
	"fmt"
	"strings"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec that this package wraps
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// A Message is one message of a stream, in either envelope. It is raw, so it can be invalid.
type Message struct {
	// Control is the control message. It comes before the elements.
	Control *creditpb.Control
	// Elements are the elements. Only a Frame can hold more than one.
	Elements []Element
	// Script is the setup element.
	Script *conformancepb.Script
	// Verbatim is the content of the message on the wire, instead of the fields above.
	Verbatim []byte
}

// An Element is one element of a direction.
type Element struct {
	Number  int64
	Payload []byte
}

// numbered returns element n with a payload of that size.
func numbered(n int64, size int) Message {
	return Message{Elements: []Element{{Number: n, Payload: make([]byte, size)}}}
}

// String returns a short description of the message.
func (m Message) String() string {
	var parts []string
	if m.Control != nil {
		parts = append(parts, fmt.Sprintf("control {%v}", m.Control))
	}
	if m.Script != nil {
		parts = append(parts, "a setup element")
	}
	for _, e := range m.Elements {
		parts = append(parts, fmt.Sprintf("element %d (%d bytes)", e.Number, len(e.Payload)))
	}
	if len(parts) == 0 {
		return "an empty message"
	}
	return strings.Join(parts, " with ")
}

// sized returns element n with an encoded size of exactly size.
func sized(n int64, size int) Message {
	for payload := size; payload > 0; payload-- {
		m := numbered(n, payload)
		if proto.Size(&conformancepb.RunRequest{Number: n, Payload: m.Elements[0].Payload}) == size {
			return m
		}
	}
	return numbered(n, 0)
}

// An envelope converts between a Message and the message that gRPC sends.
type envelope interface {
	wrap(m Message) any
	fresh() proto.Message
	unwrap(m proto.Message) Message
}

// envelopeOf returns the envelope of the suite as the peer of an end of that kind.
func envelopeOf(kind Ends) envelope {
	switch {
	case kind&Framed != 0:
		return frames{}
	case kind&ServerEnds != 0:
		return toServer{}
	default:
		return toClient{}
	}
}

// verbatim is a message that the codec sends as it is.
type verbatim []byte

// only returns the element of a message that can have at most one.
func (m Message) only() (e Element) {
	if len(m.Elements) > 0 {
		e = m.Elements[0]
	}
	return e
}

// embedded returns the Control to embed, with with_data set if the message has an element or a script.
func (m Message) embedded() *creditpb.Control {
	if m.Control == nil || m.Script == nil && len(m.Elements) == 0 {
		return m.Control
	}
	c, ok := proto.Clone(m.Control).(*creditpb.Control)
	if ok {
		c.WithData = true
	}
	return c
}

// toServer is embedded Control, from the client.
type toServer struct{}

func (toServer) wrap(m Message) any {
	return &conformancepb.RunRequest{Number: m.only().Number, Payload: m.only().Payload, Script: m.Script, Credit: m.embedded()}
}

func (toServer) fresh() proto.Message { return new(conformancepb.RunResponse) }

func (toServer) unwrap(m proto.Message) Message {
	r, ok := m.(*conformancepb.RunResponse)
	if !ok {
		return Message{}
	}
	return unembed(r.GetCredit(), Element{r.GetNumber(), r.GetPayload()}, nil)
}

// toClient is embedded Control, from the server.
type toClient struct{}

func (toClient) wrap(m Message) any {
	return &conformancepb.RunResponse{Number: m.only().Number, Payload: m.only().Payload, Credit: m.embedded()}
}

func (toClient) fresh() proto.Message { return new(conformancepb.RunRequest) }

func (toClient) unwrap(m proto.Message) Message {
	r, ok := m.(*conformancepb.RunRequest)
	if !ok {
		return Message{}
	}
	return unembed(r.GetCredit(), Element{r.GetNumber(), r.GetPayload()}, r.GetScript())
}

func unembed(c *creditpb.Control, e Element, s *conformancepb.Script) Message {
	m := Message{Control: c, Script: s}
	if s == nil && (c == nil || c.GetWithData()) {
		m.Elements = []Element{e}
	}
	return m
}

// frames is the envelope of CreditStream.
type frames struct{}

func (frames) wrap(m Message) any {
	switch {
	case m.Script != nil:
		return &creditpb.Frame{Body: &creditpb.Frame_Data{Data: marshal(m.Script)}, Piggyback: m.Control}
	case len(m.Elements) == 1:
		return &creditpb.Frame{Body: &creditpb.Frame_Data{Data: m.Elements[0].encode()}, Piggyback: m.Control}
	case len(m.Elements) > 1:
		batch := &creditpb.Batch{}
		for _, e := range m.Elements {
			batch.Data = append(batch.Data, e.encode())
		}
		return &creditpb.Frame{Body: &creditpb.Frame_Batch{Batch: batch}, Piggyback: m.Control}
	default:
		return &creditpb.Frame{Body: &creditpb.Frame_Control{Control: m.Control}}
	}
}

// encode returns the bytes of an element in a Frame.
func (e Element) encode() []byte {
	return marshal(&conformancepb.RunRequest{Number: e.Number, Payload: e.Payload})
}

func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil // impossible, because all strings of the suite are UTF-8
	}
	return b
}

func (frames) fresh() proto.Message { return new(creditpb.Frame) }

func (frames) unwrap(m proto.Message) Message {
	f, ok := m.(*creditpb.Frame)
	if !ok {
		return Message{}
	}
	switch body := f.GetBody().(type) {
	case *creditpb.Frame_Control:
		return Message{Control: body.Control}
	case *creditpb.Frame_Data:
		if f.GetPiggyback().GetOpen() != nil { // a client's
			var s conformancepb.Script
			if proto.Unmarshal(body.Data, &s) != nil {
				return Message{Control: f.GetPiggyback()}
			}
			return Message{Control: f.GetPiggyback(), Script: &s}
		}
		return Message{Control: f.GetPiggyback(), Elements: []Element{decode(body.Data)}}
	case *creditpb.Frame_Batch:
		out := Message{Control: f.GetPiggyback()}
		for _, b := range body.Batch.GetData() {
			out.Elements = append(out.Elements, decode(b))
		}
		return out
	default:
		return Message{Control: f.GetPiggyback()}
	}
}

// decode returns an element of a Frame, with the number -1 if it cannot be decoded.
func decode(b []byte) Element {
	var r conformancepb.RunRequest
	if proto.Unmarshal(b, &r) != nil {
		return Element{Number: -1}
	}
	return Element{r.GetNumber(), r.GetPayload()}
}

// codec is gRPC's codec for protobuf, but sends verbatim messages as they are.
type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(verbatim); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.CodecV2.Marshal(v)
}
