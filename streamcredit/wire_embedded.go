package streamcredit

import (
	"context"
	"sync"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// embedded is the wire of a stream with a field for Control in its messages. Its elements are the
// messages.
type embedded[Out, In any] struct {
	stream    Stream[Out, In]
	closeSend func() error // nil on a server
	out, in   *controlField
}

func newEmbedded[Out, In any](stream Stream[Out, In]) (*embedded[Out, In], error) {
	out, err := controlFieldOf((*Out)(nil))
	if err != nil {
		return nil, err
	}
	in, err := controlFieldOf((*In)(nil))
	if err != nil {
		return nil, err
	}
	return &embedded[Out, In]{stream: stream, out: out, in: in}, nil
}

func (w *embedded[Out, In]) writeControl(c *creditpb.Control) error {
	return w.writeWith(c, reflected(new(Out)))
}

func (w *embedded[Out, In]) writeElement(m *Out) error { return w.stream.Send(m) }

// writeSetup does not change m, which other goroutines may be reading.
func (w *embedded[Out, In]) writeSetup(open *creditpb.Control, m *Out) error {
	open.WithData = true
	return w.writeWith(open, shallow(reflected(m)))
}

// writeWith writes m with c in it.
func (w *embedded[Out, In]) writeWith(c *creditpb.Control, m protoreflect.Message) error {
	m.Set(w.out.desc, protoreflect.ValueOfMessage(c.ProtoReflect()))
	return w.stream.Send(any(m.Interface()).(*Out)) //nolint:forcetypeassert // it was made from one
}

func (w *embedded[Out, In]) read(into []*In) (*creditpb.Control, []*In, error) {
	m, err := w.stream.Recv()
	if err != nil {
		return nil, into, err
	}
	if !w.in.isSet(m) {
		return nil, append(into, m), nil
	}
	r := reflected(m)
	c, ok := r.Get(w.in.desc).Message().Interface().(*creditpb.Control)
	if !ok { // a dynamic message, which generated streams do not make
		return nil, into, invalid("message: got a Control of type %T, want %T", r.Get(w.in.desc).Message().Interface(), c)
	}
	if !c.GetWithData() {
		return c, into, nil
	}
	r.Clear(w.in.desc)
	return c, append(into, m), nil
}

func (w *embedded[Out, In]) writeHalfClose() error { return w.closeSend() }

func (w *embedded[Out, In]) call() any { return w.stream }

// The transport takes each message in the call that writes it.
func (*embedded[Out, In]) flush(context.Context) error { return nil }
func (*embedded[Out, In]) join()                       {}
func (*embedded[Out, In]) batch(int64)                 {}
func (*embedded[Out, In]) warns()                      {}
func (*embedded[Out, In]) bind(func(error), func())    {}
func (*embedded[Out, In]) crowded() bool               { return false }
func (*embedded[Out, In]) carried() (bool, uint64)     { return false, 0 }

func (*embedded[Out, In]) sizeOut(m *Out) int { return proto.Size(reflected(m).Interface()) }
func (*embedded[Out, In]) sizeIn(m *In) int   { return proto.Size(reflected(m).Interface()) }

// check returns an error if m cannot be an element.
func (w *embedded[Out, In]) check(m *Out) error {
	if m == nil {
		return invalid("element: got a nil %s, want a message", w.out.desc.Parent().FullName())
	}
	if w.out.isSet(m) {
		return invalid("element: got a %s with %s set, want it unset, since the protocol sets it",
			w.out.desc.Parent().FullName(), w.out.desc.Name())
	}
	return nil
}

// setup returns the argument of WithSetup as an element.
func (*embedded[Out, In]) setup(m any) (*Out, error) {
	e, ok := m.(*Out)
	if !ok || e == nil {
		return nil, invalid("WithSetup: got a %T, want a %T", m, e)
	}
	return e, nil
}

// A controlField is the field for Control in the messages of a type.
type controlField struct {
	desc  protoreflect.FieldDescriptor
	usual bool  // the field has its usual name, for which generated messages have GetCredit
	err   error // why the type has no such field
}

// isSet reports whether m has Control. It needs no reflection if the field has its usual name.
func (f *controlField) isSet(m any) bool {
	if f.usual {
		if g, ok := m.(interface{ GetCredit() *creditpb.Control }); ok {
			return g.GetCredit() != nil
		}
	}
	return reflected(m).Has(f.desc)
}

// reflected returns the message m. The type was checked when the wire was made.
func reflected(m any) protoreflect.Message {
	return m.(proto.Message).ProtoReflect() //nolint:forcetypeassert // see above
}

// shallow returns a copy of m that shares everything below its own fields.
func shallow(m protoreflect.Message) protoreflect.Message {
	c := m.New()
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		c.Set(f, v)
		return true
	})
	if unknown := m.GetUnknown(); len(unknown) > 0 {
		c.SetUnknown(unknown)
	}
	return c
}

// controlFields caches the results of findControl by descriptor. The number of message types in
// the program bounds it.
var controlFields sync.Map

// controlFieldOf returns the field for Control in the messages of m's type. If there is none, the
// error says how to add it.
func controlFieldOf(m any) (*controlField, error) {
	msg, ok := m.(proto.Message)
	if !ok {
		return nil, invalid("stream: got one of %T, want one of protobuf messages", m)
	}
	md := msg.ProtoReflect().Descriptor()
	known, ok := controlFields.Load(md)
	if !ok {
		f, err := findControl(md)
		known, _ = controlFields.LoadOrStore(md, &controlField{desc: f, usual: err == nil && f.Name() == "credit", err: err})
	}
	found := known.(*controlField) //nolint:forcetypeassert // the map holds nothing else
	return found, found.err
}

// findControl finds the one singular field of type Control that is not in a oneof.
func findControl(md protoreflect.MessageDescriptor) (protoreflect.FieldDescriptor, error) {
	control := (*creditpb.Control)(nil).ProtoReflect().Descriptor().FullName()
	var found protoreflect.FieldDescriptor
	for i := range md.Fields().Len() {
		f := md.Fields().Get(i)
		if f.Message() == nil || f.Message().FullName() != control || f.IsMap() {
			continue
		}
		switch {
		case f.IsList() || f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic():
			return nil, invalid("message %s: got field %s of type %s repeated or in a oneof, want it plain",
				md.FullName(), f.Name(), control)
		case found != nil:
			return nil, invalid("message %s: got fields %s and %s of type %s, want one", md.FullName(), found.Name(), f.Name(), control)
		}
		found = f
	}
	if found == nil {
		return nil, invalid("message %s: got no field of type %[2]s, want one: "+
			"import weir/credit/v1/credit.proto and add \"%[2]s credit = 15;\"",
			md.FullName(), control)
	}
	return found, nil
}
