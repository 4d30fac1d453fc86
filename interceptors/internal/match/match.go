// Package match chooses calls by the names of their methods, and checks matchers.
package match

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"

	"github.com/weir-go/weir/internal/check"
)

// Methods matches calls by name. It is safe for concurrent use.
type Methods struct {
	names []string
	parts []parts
	wrong check.Errors
}

// parts are the service and the method of a name. No method stands for all of the service.
type parts struct{ service, method string }

// New returns a matcher for names of the form "/service/method" or "/service/". [Check] finds
// wrong names.
func New(names ...string) *Methods {
	m := &Methods{names: names, parts: make([]parts, len(names))}
	m.wrong.That(len(names) > 0, "Methods: got no name, want one or more")
	for i, name := range names {
		m.wrong.From("Methods", CheckName(name), nil)
		m.parts[i].service, m.parts[i].method, _ = strings.Cut(strings.TrimPrefix(name, "/"), "/")
	}
	return m
}

// Match implements selector.Matcher.
func (m *Methods) Match(_ context.Context, c middleware.CallMeta) bool {
	for i := range m.parts {
		if p := &m.parts[i]; p.service == c.Service && (p.method == c.Method || p.method == "") {
			return true
		}
	}
	return false
}

// Has reports whether m was made of these names, in this order. A nil m has none.
func (m *Methods) Has(names []string) bool { return m != nil && slices.Equal(m.names, names) }

// Covered returns the names of m that add no call to another matcher.
func (m *Methods) Covered(by *Methods) (names []string) {
	for i, name := range m.parts {
		if slices.ContainsFunc(by.parts, func(p parts) bool {
			return p.service == name.service && (p.method == "" || p.method == name.method)
		}) {
			names = append(names, m.names[i])
		}
	}
	return names
}

// CheckName returns an error unless a name is "/service/method" or "/service/".
func CheckName(name string) error {
	service, method, ok := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	odd := func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune(`*?"'\\,;|{}[]()`, c) }
	switch {
	case strings.ContainsFunc(name, odd):
		return fmt.Errorf(`got %q, want "/service/method" or "/service/": there are no wildcards`, name)
	case service == "" || strings.Contains(method, "/"):
		return fmt.Errorf(`got %q, want "/service/method", or "/service/" for all methods of a service`, name)
	case !ok:
		return fmt.Errorf(`got %q, want "/%s/" for all methods of a service, or "/%s/" and a method`, name, service, service)
	case name[0] != '/':
		return fmt.Errorf(`got %q, want "/%s"`, name, name)
	}
	return nil
}

// Check returns the mistakes of a matcher, joined. A nil matcher matches everything.
func Check(m selector.Matcher) error {
	if m == nil {
		return nil
	}
	if names, ok := m.(*Methods); ok && names != nil {
		return errors.Join(names.wrong...)
	}
	if isNil(reflect.ValueOf(m)) {
		return fmt.Errorf("got a nil %T, want a matcher, or nil alone for every call", m)
	}
	return nil
}

// isNil reports whether a call of the matcher would panic on a nil value. selector.MatchFunc
// wraps its function in a struct.
func isNil(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Func, reflect.Pointer:
		return v.IsNil()
	case reflect.Struct:
		return v.NumField() == 1 && v.Field(0).Kind() == reflect.Func && v.Field(0).IsNil()
	default:
		return false
	}
}
