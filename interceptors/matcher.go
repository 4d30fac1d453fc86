package interceptors

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
)

type (
	// CallMeta describes a call to a matcher or a classifier. It has the service, method
	// and kind of the call, and the request of a unary call. It is the CallMeta of
	// go-grpc-middleware.
	CallMeta = middleware.CallMeta

	// A Matcher chooses calls. It is the Matcher of go-grpc-middleware, so its selectors
	// can be used. See [Methods] and [MatchFunc].
	Matcher = selector.Matcher
)

// MatchFunc returns a matcher that asks f.
func MatchFunc(f func(ctx context.Context, c CallMeta) bool) Matcher { return selector.MatchFunc(f) }

// Methods matches calls by name, as gRPC writes it: "/shop.Orders/Buy" is a method, and
// "/shop.Orders/" is all methods of a service. There are no wildcards. A name of another
// form is an error of [Server] and [Client]. In an interceptor that was made without them,
// it fails every call with INTERNAL.
func Methods(names ...string) Matcher {
	m := &methods{names: names, parts: make([]methodParts, len(names))}
	if len(names) == 0 {
		m.wrong = append(m.wrong, errors.New("Methods: got no name, want one or more"))
	}
	for i, name := range names {
		if err := checkMethod(name); err != nil {
			m.wrong = append(m.wrong, fmt.Errorf("Methods: %w", err))
		}
		m.parts[i].service, m.parts[i].method, _ = strings.Cut(strings.TrimPrefix(name, "/"), "/")
	}
	return m
}

type (
	methods struct {
		names []string
		parts []methodParts
		wrong []error
	}
	methodParts struct{ service, method string }
)

// Match implements Matcher.
func (m *methods) Match(_ context.Context, c CallMeta) bool {
	for i := range m.parts {
		if p := &m.parts[i]; p.service == c.Service && (p.method == c.Method || p.method == "") {
			return true
		}
	}
	return false
}

// checkMethod returns an error unless a name is "/service/method" or "/service/".
func checkMethod(name string) error {
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

// checkMatcher returns the mistakes of a matcher. A nil one matches everything.
func checkMatcher(m Matcher) []error {
	if m == nil {
		return nil
	}
	if names, ok := m.(*methods); ok && names != nil {
		return names.wrong
	}
	if isNil(reflect.ValueOf(m)) {
		return []error{fmt.Errorf("got a nil %T, want a matcher, or nil alone for every call", m)}
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
