package admit

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// A Section is what a document with several gates says of one of them.
type Section struct {
	// Name is the gate's name, unlike that of all others.
	Name string
	// Methods are the calls that the gate is for, as the document has them. Nil if it
	// does not say.
	Methods []string
	// Streams reports whether the gate is for streams.
	Streams bool
	// Option is all else.
	Option Option

	node *node
}

// Where says where a key of the section stands in the document, as in
// "line 12: gates[1].methods[0]", for errors. A key that is not there is where the
// section begins.
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

// SectionsFromJSON reads a document with several gates:
//
//	{"gates": [
//	  {"name": "write", "methods": ["/shop.Orders/Buy"], "limit": {"algorithm": "fixed", "limit": 20}},
//	  {"name": "feed", "methods": ["/shop.Feed/"], "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}},
//	  {"name": "rest", "quotas": {"tenant": {"rate": 50}}}
//	]}
//
// Besides its name and what it is for a gate has what [FromJSON] takes. The error is
// like that of FromJSON. With an error come the sections that could be read, so that
// the caller can check those too.
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
	if m := n.get("methods"); m != nil && m.token != nil && r.is(m, json.Delim('['), "an array of methods") {
		s.Methods = []string{}
		for _, v := range m.values {
			if v.token == nil {
				r.wrong(v, "got null, want a method")
			}
			name, isText := r.text(v)
			if isText && name == "" {
				r.wrong(v, `got "", want "/service/method" or "/service/"`)
			}
			s.Methods = append(s.Methods, name)
		}
	}
	return s, ok
}

// UpdateFromJSON changes the gates of a document with several: those that it names, by
// their names. It changes all of them or, with an error, none, unless another Update
// comes at the same time. What the gates are for is not looked at.
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
			r.wrong(s.node, "got a gate %q, want one of those that there are: a new one takes a restart", s.Name)
		} else if err := g.wouldTake(s.Option); err != nil {
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

// wouldTake returns the error that Update would.
func (g *Gate) wouldTake(o Option) error {
	g.mu.Lock()
	next := g.cfg
	g.mu.Unlock()
	next.algorithmSet = false
	next.take([]Option{o})
	return errors.Join(next.validate()...)
}
