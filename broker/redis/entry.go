package redis

import (
	"fmt"
	"unicode/utf8"

	"github.com/weir-go/weir/broker"
)

// An entry is one entry of the stream.
type entry struct {
	id      string
	fields  []string // names and values in turn, as the producer has sent them
	attempt int
}

// message returns the entry as a message. Of two fields with the same name the last counts.
func (e entry) message(c Config, s broker.Settler) *broker.Message {
	m := broker.Message{ID: e.id, Attempt: e.attempt}
	for i := 0; i+1 < len(e.fields); i += 2 {
		switch name, value := e.fields[i], e.fields[i+1]; {
		case name == c.BodyField:
			m.Body = []byte(value)
		case name == c.KeyField:
			m.Key = value
		case utf8.ValidString(name) && utf8.ValidString(value):
			if m.Attributes == nil {
				m.Attributes = map[string]string{}
			}
			m.Attributes[name] = value
		}
	}
	return broker.NewMessage(m, s)
}

// readReply returns the entries of a reply to XREADGROUP for one stream. Redis sends a map,
// or a list of pairs to clients of the older protocol.
func readReply(reply any) ([]entry, error) {
	var entries any
	switch r := reply.(type) {
	case nil:
		return nil, nil
	case map[any]any:
		for _, list := range r {
			entries = list
		}
	case []any:
		if len(r) != 1 {
			return nil, fmt.Errorf("redis: got %d streams, want one", len(r))
		}
		pair, ok := r[0].([]any)
		if !ok || len(pair) != 2 {
			return nil, fmt.Errorf("redis: got %v, want a stream with its entries", r[0])
		}
		entries = pair[1]
	}
	list, ok := entries.([]any)
	if !ok {
		return nil, fmt.Errorf("redis: got a reply of type %T, want entries of a stream", reply)
	}
	return parseEntries(list, 1)
}

// parseEntries returns the entries of a list. An element has an ID and fields. Scripts add
// the number of deliveries, otherwise it is attempt.
func parseEntries(list []any, attempt int) ([]entry, error) {
	entries := make([]entry, 0, len(list))
	for _, item := range list {
		parts, ok := item.([]any)
		if !ok || len(parts) < 2 {
			return nil, fmt.Errorf("redis: got %v, want an entry", item)
		}
		e := entry{attempt: attempt}
		e.id, ok = parts[0].(string)
		fields, isList := parts[1].([]any)
		if !ok || !isList {
			return nil, fmt.Errorf("redis: got %v, want the ID and the fields of an entry", item)
		}
		for _, f := range fields {
			s, _ := f.(string)
			e.fields = append(e.fields, s)
		}
		if len(parts) > 2 {
			n, _ := parts[2].(int64)
			e.attempt = int(n)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
