package admit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// A Section describes one gate of a document with several.
type Section struct {
	// Name is the gate's name. It is unique within the document.
	Name string
	// Methods are the values of the key "methods", unchecked. It is nil without the key.
	Methods []string
	// Streams reports whether the gate is for streams.
	Streams bool
	// Option is the rest of the configuration.
	Option Option

	node *node
}

// Where returns the place of a key of the section for an error, with the line and the
// path, such as gates[1].methods[0]. A key that is not there has the line of the section.
func (s Section) Where(key string) string {
	n := &node{line: s.node.line, path: s.node.path + "." + key}
	name, index, _ := strings.Cut(key, "[")
	if v := s.node.get(name); v != nil {
		n.line = v.line
		var i int
		if _, err := fmt.Sscanf(index, "%d]", &i); err == nil && i < len(v.values) {
			n.line = v.values[i].line
		}
	}
	return n.where()
}

// SectionsFromJSON reads a document with several gates. Besides the keys of [FromJSON],
// each gate has a name and the calls that it is for:
//
//	{"gates": [
//	  {"name": "write", "methods": ["/shop.Orders/Buy"], "limit": {"algorithm": "fixed", "limit": 20}},
//	  {"name": "feed", "methods": ["/shop.Feed/"], "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}},
//	  {"name": "rest", "quotas": {"tenant": {"rate": 50}}}
//	]}
//
// The error is like that of FromJSON. SectionsFromJSON also returns the sections that it
// could read, so that the caller can check them and report all errors at once.
func SectionsFromJSON(document []byte) ([]Section, error) {
	var r reader
	root := r.read(document)
	if root == nil || !r.object(root, "gates") {
		return nil, r.err()
	}
	list := root.get("gates")
	switch {
	case list == nil:
		r.wrong(root, `got no "gates", want an array of gates`)
		return nil, r.err()
	case list.token == nil || !r.is(list, json.Delim('['), "an array of gates"):
		return nil, r.err()
	case len(list.values) == 0:
		r.wrong(list, "got no gate, want one")
	}
	var sections []Section
	lines := map[string]int{}
	for _, n := range list.values {
		s, ok := r.section(n)
		if !ok {
			continue
		}
		if line, there := lines[s.Name]; there {
			r.wrong(n.get("name"), "got %q, the name of the gate on line %d, want one of its own", s.Name, line)
		}
		lines[s.Name] = n.line
		sections = append(sections, s)
	}
	return sections, r.err()
}

func (r *reader) section(n *node) (Section, bool) {
	s := Section{node: n, Option: r.gate(n, "name", "methods", "streams")}
	if n.token != json.Delim('{') {
		return s, false
	}
	name, ok := r.text(n.get("name"))
	switch {
	case n.get("name") == nil:
		r.wrong(n, `got no "name", want one that says what the gate protects`)
	case ok && name == "":
		r.wrong(n.get("name"), "got an empty name, want one that says what the gate protects")
		ok = false
	}
	s.Name = name
	s.Streams, _ = r.boolean(n.get("streams"))
	s.Methods = r.methods(n.get("methods"))
	return s, ok
}

// methods reads an array of methods. It returns nil if there is none.
func (r *reader) methods(n *node) []string {
	if n == nil || n.token == nil || !r.is(n, json.Delim('['), "an array of methods") {
		return nil
	}
	methods := []string{}
	for _, v := range n.values {
		if v.token == nil {
			r.wrong(v, "got null, want a method")
		}
		name, isText := r.text(v)
		if isText && name == "" {
			r.wrong(v, `got "", want "/service/method" or "/service/"`)
		}
		methods = append(methods, name)
	}
	return methods
}

// UpdateFromJSON applies a document with several gates to the gates of the same names.
// Gates that the document does not name keep their configuration. If the document is
// wrong, no gate changes, unless another Update runs at the same time. The keys "methods"
// and "streams" have no effect here.
func UpdateFromJSON(document []byte, gates ...*Gate) error {
	sections, err := SectionsFromJSON(document)
	if err != nil {
		return err
	}
	byName := map[string]*Gate{}
	for _, g := range gates {
		byName[g.Name()] = g
	}
	var r reader
	for _, s := range sections {
		if g := byName[s.Name]; g == nil {
			r.wrong(s.node, "got a gate %q, want one of those that there are: a new gate needs a restart", s.Name)
		} else if err := configured(g, func(c *config) error { return c.wouldTake(s.Option) }); err != nil {
			r.wrong(s.node, "%w", err)
		}
	}
	if err := r.err(); err != nil {
		return err
	}
	for _, s := range sections {
		if err := byName[s.Name].Update(s.Option); err != nil {
			r.wrong(s.node, "%w", err)
		}
	}
	return r.err()
}

// wouldTake returns the errors that an Update with the option would return.
func (c *config) wouldTake(o Option) error {
	next := c.with([]Option{o})
	return errors.Join(next.validate()...)
}
