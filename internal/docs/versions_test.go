package docs_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// number returns what an expression finds in a file of the tree.
func number(t *testing.T, file, expression string) string {
	t.Helper()
	raw := read(t, file)
	m := regexp.MustCompile("(?m)" + expression).FindSubmatch(raw)
	if m == nil {
		t.Fatalf("%s: got no %q, want one", file, expression)
	}
	return string(m[1])
}

// README.md names the versions that the tests run with, the lowest and the newest.
func TestVersions(t *testing.T) {
	const minor = `(\d+\.\d+)`
	want := fmt.Sprintf("(%s, %s) and with grpc-go %s to %s",
		number(t, "go.mod", `^go `+minor), number(t, "Makefile", `^NEWEST_GO\s*:= go`+minor),
		number(t, "go.mod", `google\.golang\.org/grpc v`+minor), number(t, "tools/newest.mod", `google\.golang\.org/grpc v`+minor))
	raw := read(t, "README.md")
	if !strings.Contains(string(raw), want) {
		t.Errorf("README.md: got no %q, want the versions of go.mod, Makefile and tools/newest.mod", want)
	}
}
