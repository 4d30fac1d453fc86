package archtest_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
)

// requirements lists the modules that the library's module may require itself,
// and why. Users inherit those of the library; those of tests only show in their
// go.sum. (That go.mod requires no more than the code imports is for
// "go mod tidy -diff" to see, in make lint.)
var requirements = map[string]string{
	"google.golang.org/grpc":                          "what weir is for",
	"google.golang.org/protobuf":                      "messages, and details of errors",
	"google.golang.org/genproto/googleapis/rpc":       "RetryInfo and ErrorInfo",
	"github.com/grpc-ecosystem/go-grpc-middleware/v2": "the language for choosing calls",
	"github.com/prometheus/client_golang":             "metrics",
	"github.com/sony/gobreaker/v2":                    "the circuit breaker: bought, not built",
	"golang.org/x/time":                               "quotas: the token bucket",
	"pgregory.net/rapid":                              "tests: properties",
	"go.uber.org/goleak":                              "tests: leaks",
	"golang.org/x/net":                                "tests: HTTP/2 frames written by hand",
}

// checkRequirements returns what the go.mod in root says that it should not, and
// what is on the list but not in it.
func checkRequirements(t *testing.T, root fs.FS) (problems, unused []string) {
	t.Helper()
	direct, other := parseGoMod(t, root)
	for _, m := range direct {
		if requirements[m] == "" {
			problems = append(problems, fmt.Sprintf("go.mod requires %s, which is not on the list of requirements", m))
		}
	}
	for m := range requirements {
		if !slices.Contains(direct, m) {
			unused = append(unused, m)
		}
	}
	for _, d := range other {
		switch d {
		case "replace", "exclude": // which are ignored in a dependency: users would build something else
			problems = append(problems, fmt.Sprintf("go.mod has a %s directive, want none", d))
		case "tool": // whose requirements users would inherit
			problems = append(problems, "go.mod has a tool directive, want it in tools/go.mod")
		}
	}
	slices.Sort(unused)
	return problems, unused
}

// parseGoMod returns the modules that the go.mod in root requires directly, and
// the words that its other directives begin with.
func parseGoMod(t *testing.T, root fs.FS) (direct, other []string) {
	t.Helper()
	data, err := fs.ReadFile(root, "go.mod")
	if err != nil {
		t.Fatalf("reading go.mod: %v", err)
	}
	block := "" // the directive whose parentheses are open
	for line := range strings.Lines(string(data)) {
		code, comment, _ := strings.Cut(line, "//")
		words := strings.Fields(code)
		switch {
		case len(words) == 0:
			continue
		case words[0] == ")":
			block = ""
			continue
		case len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case block != "":
			words = append([]string{block}, words...)
		}
		if words[0] != "require" {
			other = append(other, words[0])
		} else if len(words) > 1 && strings.TrimSpace(comment) != "indirect" {
			direct = append(direct, strings.Trim(words[1], `"`))
		}
	}
	return direct, other
}

func TestRequirements(t *testing.T) {
	problems, unused := checkRequirements(t, tree())
	report(t, problems)
	if len(unused) > 0 { // not an error: a part that is not built yet is what needs them
		t.Logf("allowed but not required directly: %q", unused)
	}
}

func TestRequirementsCheck(t *testing.T) {
	for name, c := range map[string]struct {
		mod  string
		want []string
	}{
		"nothing":          {"module m\n\ngo 1.26.0\n", nil},
		"allowed":          {"require google.golang.org/grpc v1.85.0\nrequire (\n\tgo.uber.org/goleak v1.3.0 // a comment\n)\n", nil},
		"indirect":         {"require example.com/a v1.0.0 // indirect\nrequire (\n\texample.com/b v1.0.0 // indirect\n)\n", nil},
		"on a line":        {"require example.com/a v1.0.0\n", []string{"example.com/a"}},
		"in a block":       {"require (\n\tgo.uber.org/goleak v1.3.0\n\t\"example.com/b\" v1.0.0\n)\n", []string{"requires example.com/b,"}},
		"almost allowed":   {"require google.golang.org/grpc/security v1.0.0\n", []string{"grpc/security"}},
		"replace":          {"replace google.golang.org/grpc => ../grpc\n", []string{"replace"}},
		"replace in block": {"replace (\n\ta => b\n)\nrequire example.com/c v1.0.0\n", []string{"example.com/c", "replace"}},
		"exclude":          {"exclude google.golang.org/grpc v1.0.0\n", []string{"exclude"}},
		"tool":             {"tool example.com/cmd/x\n", []string{"tools/go.mod"}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := checkRequirements(t, synthetic(map[string]string{"go.mod": c.mod}))
			wantProblems(t, got, c.want...)
		})
	}
}

func TestUnusedRequirementsAreNoticed(t *testing.T) {
	_, all := checkRequirements(t, synthetic(map[string]string{"go.mod": "module m\n"}))
	_, rest := checkRequirements(t, synthetic(map[string]string{"go.mod": "require google.golang.org/grpc v1.85.0\n"}))
	if len(all) != len(requirements) || len(rest) != len(all)-1 || slices.Contains(rest, "google.golang.org/grpc") {
		t.Errorf("unused, of none and of one required = %q and %q, want all, and all but grpc", all, rest)
	}
}
