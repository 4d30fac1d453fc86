package admit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-go/weir/internal/check"
)

// A node is a value of a JSON document with its place.
type node struct {
	path string // of keys, such as queue.max_wait; empty for the document
	line int
	// token is a json.Delim ('{' or '['), a string, a json.Number, a bool, or nil for
	// null.
	token  json.Token
	keys   []string // of an object
	values []*node  // of an object or an array
}

// where returns the place of the value for an error.
func (n *node) where() string {
	if n.path == "" {
		return fmt.Sprintf("line %d", n.line)
	}
	return fmt.Sprintf("line %d: %s", n.line, n.path)
}

// got describes the value for an error.
func (n *node) got() string {
	switch t := n.token.(type) {
	case nil:
		return "null"
	case json.Delim:
		if t == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return strconv.Quote(t)
	}
	return fmt.Sprint(n.token)
}

// get returns the value of a key, or nil if there is none.
func (n *node) get(key string) *node {
	if i := slices.Index(n.keys, key); i >= 0 {
		return n.values[i]
	}
	return nil
}

// A reader reads a document and gathers its errors. Methods that read a value accept a
// nil node, for a key that is not there.
type reader struct {
	document []byte
	tokens   *json.Decoder
	line     int // at offset
	offset   int64
	bad      check.Errors
}

// mostNestedJSON is deeper than any configuration.
const mostNestedJSON = 16

// wrong adds an error at the place of a value.
func (r *reader) wrong(n *node, format string, args ...any) {
	r.bad.That(false, "%s: "+format, append([]any{n.where()}, args...)...)
}

var errDocument = fmt.Errorf("%w: document", ErrConfig)

// err returns all errors, or nil.
func (r *reader) err() error { return r.bad.Err(errDocument) }

// read reads a document. It returns nil if the syntax is wrong.
func (r *reader) read(document []byte) *node {
	r.document, r.line = document, 1
	r.tokens = json.NewDecoder(bytes.NewReader(document))
	r.tokens.UseNumber()
	root := &node{line: 1}
	switch {
	case bytes.HasPrefix(document, []byte("\xef\xbb\xbf")):
		r.wrong(root, "got a byte order mark, want UTF-8 without one")
		return nil
	case !utf8.Valid(document):
		r.wrong(root, "got bytes that are not UTF-8, want JSON in UTF-8")
		return nil
	case len(bytes.TrimSpace(document)) == 0:
		r.wrong(root, "got nothing, want an object")
		return nil
	}
	if !r.value(root, 0) {
		return nil
	}
	if len(bytes.TrimSpace(document[r.offset:])) > 0 {
		got := r.excerpt()
		r.wrong(&node{line: r.line}, "got %s after the object, want nothing", got)
		return nil
	}
	return root
}

// value reads the next value into n.
func (r *reader) value(n *node, depth int) bool {
	if !r.next(n) {
		return false
	}
	open, nested := n.token.(json.Delim)
	if !nested {
		return true
	}
	if depth == mostNestedJSON {
		r.wrong(n, "got values nested %d deep, want fewer", depth)
		return false
	}
	for i := 0; r.tokens.More(); i++ {
		v := &node{path: fmt.Sprintf("%s[%d]", n.path, i)}
		if open == '{' && !r.key(n, v) || !r.value(v, depth+1) {
			return false
		}
		n.values = append(n.values, v)
	}
	return r.next(&node{path: n.path}) // the closing delimiter
}

// key reads a key of the object n. It sets the place of its value v.
func (r *reader) key(n, v *node) bool {
	k := &node{path: n.path}
	if !r.next(k) {
		return false
	}
	key, _ := k.token.(string)
	v.path, v.line = join(n.path, key), k.line
	if slices.Contains(n.keys, key) {
		r.wrong(v, "got the key twice, want it only once")
	}
	n.keys = append(n.keys, key)
	return true
}

// join appends a key to a path.
func join(path, key string) string {
	if key == "" || strings.ContainsFunc(key, func(c rune) bool { return c <= ' ' || c == '.' || c == '[' || c > '~' }) {
		key = strconv.Quote(key)
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

// next reads a token into n.
func (r *reader) next(n *node) (ok bool) {
	t, err := r.tokens.Token()
	r.advance()
	n.token, n.line = t, r.line
	if err == nil {
		return true
	}
	switch got := r.excerpt(); got {
	case "":
		r.wrong(n, "got the end of the document, want the rest of it")
	default:
		r.wrong(n, "got %s, want JSON", got)
	}
	return false
}

// advance counts lines up to the end of the last token, or to a syntax error.
func (r *reader) advance() {
	to := r.tokens.InputOffset()
	r.line += bytes.Count(r.document[r.offset:to], []byte("\n"))
	r.offset = to
}

// excerpt returns the beginning of the text that cannot be read.
func (r *reader) excerpt() string {
	rest := bytes.TrimLeft(r.document[r.offset:], " \t\r\n")
	if len(rest) > 1 && rest[0] == ':' { // the value of a key cannot be read
		rest = bytes.TrimLeft(rest[1:], " \t\r\n")
	}
	r.line += bytes.Count(r.document[r.offset:len(r.document)-len(rest)], []byte("\n"))
	r.offset = int64(len(r.document) - len(rest))
	if i := bytes.IndexAny(rest, " \t\r\n,:{}[]"); i > 0 {
		rest = rest[:i]
	} else if i == 0 {
		rest = rest[:1]
	}
	const most = 24
	return strings.ToValidUTF8(string(rest[:min(most, len(rest))]), "")
}

// object checks that n is an object with no other keys than these. Only keys that are
// given with a "?" may be null. Without any keys, it allows all.
func (r *reader) object(n *node, keys ...string) bool {
	if !r.is(n, json.Delim('{'), "an object") {
		return false
	}
	if keys == nil {
		return true
	}
	for i, key := range n.keys {
		switch {
		case slices.Contains(keys, key+"?"):
		case !slices.Contains(keys, key):
			r.wrong(n.values[i], "unknown key, want %s", closest(key, keys))
		case n.values[i].token == nil:
			r.wrong(n.values[i], "got null, want a value, or leave the key out")
		}
	}
	return true
}

// closest describes the keys that an unknown key may have meant.
func closest(key string, keys []string) string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = strings.TrimSuffix(k, "?")
		if strings.EqualFold(names[i], key) {
			return strconv.Quote(names[i])
		}
	}
	return "one of " + strings.Join(names, ", ")
}

// is checks that the token of n is the wanted one.
func (r *reader) is(n *node, token json.Token, want string) bool {
	if n.token != token {
		r.wrong(n, "got %s, want %s", n.got(), want)
		return false
	}
	return true
}

// each calls f for every key of an object.
func (r *reader) each(n *node, f func(key string, value *node)) {
	if n == nil || n.token == nil || !r.object(n) {
		return
	}
	for i, key := range n.keys {
		f(key, n.values[i])
	}
}

// The functions below read a value if it is there. They ignore null, which object has
// reported.

func (r *reader) text(n *node) (s string, ok bool) {
	if n == nil || n.token == nil {
		return "", false
	}
	if s, ok = n.token.(string); !ok {
		r.wrong(n, "got %s, want a text", n.got())
	}
	return s, ok
}

func (r *reader) boolean(n *node) (b, ok bool) {
	if n == nil || n.token == nil {
		return false, false
	}
	if b, ok = n.token.(bool); !ok {
		r.wrong(n, "got %s, want true or false", n.got())
	}
	return b, ok
}

func (r *reader) integer(n *node, lo, hi int) (i int, ok bool) {
	if n == nil || n.token == nil {
		return 0, false
	}
	number, ok := n.token.(json.Number)
	i, err := strconv.Atoi(string(number))
	if !ok || err != nil && !errors.Is(err, strconv.ErrRange) {
		r.wrong(n, "got %s, want a whole number", n.got())
		return 0, false
	}
	if err != nil || i < lo || i > hi {
		r.wrong(n, "got %s, want %d to %d", number, lo, hi)
		return 0, false
	}
	return i, true
}

func (r *reader) number(n *node, lo, hi float64) (f float64, ok bool) {
	if n == nil || n.token == nil {
		return 0, false
	}
	number, ok := n.token.(json.Number)
	f, err := strconv.ParseFloat(string(number), 64)
	if !ok {
		r.wrong(n, "got %s, want a number", n.got())
		return 0, false
	}
	switch {
	case err != nil:
		r.wrong(n, "got %s, want a number that is not so large", number)
	case f < lo || f > hi:
		r.wrong(n, "got %s, want %v to %v", number, lo, hi)
	default:
		return f, true
	}
	return 0, false
}

func (r *reader) duration(n *node) (d time.Duration, ok bool) {
	if n == nil || n.token == nil {
		return 0, false
	}
	s, ok := n.token.(string)
	if d, err := time.ParseDuration(s); ok && err == nil && d >= 0 {
		return d, true
	}
	r.wrong(n, `got %s, want a duration such as "250ms"`, n.got())
	return 0, false
}

// oneOf returns the index of a name.
func (r *reader) oneOf(n *node, names ...string) (i int, ok bool) {
	s, ok := r.text(n)
	if !ok {
		return 0, false
	}
	if i = slices.Index(names, s); i < 0 {
		r.wrong(n, "got %q, want one of %s", s, strings.Join(names, ", "))
	}
	return i, i >= 0
}
