package archtest_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"testing"
)

// A rule is one row of the import table. Tests are not subject to it. They may use
// whatever their module requires.
type rule struct {
	dir string // the package; dir/... is the package and all below it

	// may lists what it may import besides the standard library: import paths,
	// those of this module without the module's path. A trailing /... includes
	// all below, and "..." alone is anything.
	may []string
	// not lists packages of the standard library that it may not import.
	not []string
	// pure forbids reading a clock, waiting and starting goroutines.
	pure bool
}

const grpc, protobuf = "google.golang.org/grpc", "google.golang.org/protobuf"

// rules is the import table. A package that no row names may not exist; the
// first row that names it decides.
var rules = []rule{
	{dir: "limit", may: []string{"internal/check"}, not: []string{"context", "sync/..."}, pure: true},
	{dir: "admit", may: []string{"limit", "internal/inside", "internal/check", "admit/internal/turn", "golang.org/x/time/rate"}},
	{dir: "pressure", may: []string{"internal/check"}},
	{dir: "admit/internal/turn", not: []string{"context", "sync/..."}, pure: true},
	{dir: "streamcredit/internal/queue", not: []string{"context", "sync/..."}, pure: true},
	{dir: "streamcredit/internal/ledger", may: []string{"streamcredit/internal/queue"}, not: []string{"context", "sync/..."}, pure: true},
	{dir: "streamcredit", may: []string{
		"streamcredit/internal/...", "internal/check", "internal/details", "internal/stall", "proto/...", protobuf + "/...",
		grpc, grpc + "/codes", grpc + "/metadata", grpc + "/peer", grpc + "/status",
		"google.golang.org/genproto/googleapis/rpc/errdetails",
	}},
	{dir: "interceptors", may: []string{
		"admit", "internal/check", "internal/inside", "internal/stall", "interceptors/...", grpc + "/...",
		"github.com/grpc-ecosystem/go-grpc-middleware/v2/...", protobuf + "/proto",
	}},
	{dir: "interceptors/breaker", may: []string{
		"interceptors/internal/...", "internal/check", grpc + "/...", "github.com/sony/gobreaker/v2",
	}},
	{dir: "interceptors/gates", may: []string{
		"admit", "interceptors/internal/match", "internal/check", "github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector",
	}},
	{dir: "interceptors/memory", may: []string{"interceptors/internal/hold", "internal/check", grpc + "/..."}},
	{dir: "interceptors/throttle", may: []string{"interceptors/internal/...", "internal/check", grpc + "/..."}},
	{dir: "interceptors/retry", may: []string{
		"interceptors/internal/places", "internal/check", grpc + "/...", protobuf + "/protoadapt", protobuf + "/proto",
	}},
	{dir: "interceptors/internal/refusal", may: []string{
		"admit", "internal/details", "internal/statustext", grpc + "/codes", grpc + "/metadata", grpc + "/status",
		protobuf + "/types/known/durationpb", protobuf + "/protoadapt", protobuf + "/proto",
		"google.golang.org/genproto/googleapis/rpc/errdetails", "google.golang.org/genproto/googleapis/rpc/status",
	}},
	{dir: "interceptors/internal/calltest", may: []string{ // for tests
		"admit", "limit", "examples/demopb", "internal/grpctest", grpc + "/...", "google.golang.org/genproto/googleapis/rpc/errdetails",
		protobuf + "/types/known/wrapperspb",
	}},
	{dir: "interceptors/internal/callctx", may: []string{"admit"}},
	{dir: "interceptors/internal/hold", may: []string{"admit"}},
	{dir: "interceptors/internal/places", may: []string{grpc}},
	{dir: "interceptors/internal/latency", may: []string{"interceptors/internal/places", grpc}},
	{dir: "interceptors/internal/match", may: []string{"internal/check", "github.com/grpc-ecosystem/go-grpc-middleware/v2/..."}},
	{dir: "interceptors/internal/peers", may: []string{grpc, grpc + "/peer"}},
	{dir: "interceptors/internal/observe", may: []string{grpc, grpc + "/metadata"}},
	{dir: "broker", may: []string{
		"admit", "streamcredit", "internal/check", "internal/details", "internal/statustext", grpc + "/codes", grpc + "/status",
	}},
	{dir: "broker/internal/batch"},
	{dir: "broker/internal/servertest"}, // for tests
	{dir: "broker/brokertest", may: []string{"broker"}},
	{dir: "broker/kafka", may: []string{"broker", "broker/kafka/internal/offsets", "internal/check", "github.com/twmb/franz-go/pkg/..."}},
	{dir: "broker/kafka/internal/offsets"},
	{dir: "broker/nats", may: []string{"broker", "internal/check", "github.com/nats-io/nats.go/..."}},
	{dir: "broker/rabbitmq", may: []string{
		"broker", "broker/rabbitmq/internal/window", "internal/check", "github.com/rabbitmq/amqp091-go",
	}},
	{dir: "broker/rabbitmq/internal/window"},
	{dir: "broker/redis", may: []string{"broker", "broker/internal/batch", "internal/check", "github.com/redis/go-redis/v9"}},
	{dir: "broker/sqs", may: []string{
		"broker", "broker/internal/batch", "internal/check", "github.com/aws/aws-sdk-go-v2/...", "github.com/aws/smithy-go",
	}},
	{dir: "weirtest", may: []string{"admit", "interceptors", "internal/inside", grpc + "/..."}},
	{dir: "metrics", may: append([]string{"internal/check", "internal/sources", "github.com/prometheus/client_golang/..."}, watched...)},
	{dir: "debug", may: append([]string{"internal/check", "internal/sources", grpc, "proto/...", protobuf + "/..."}, watched...)},
	{dir: "internal/sources", may: []string{
		"admit", "broker", "interceptors/breaker", "interceptors/retry", "interceptors/throttle", "internal/check", "pressure", "streamcredit",
	}},
	{dir: "otel", may: []string{
		"admit", "metrics", "internal/check", "github.com/prometheus/client_golang/...", "github.com/prometheus/client_model/go", "go.opentelemetry.io/otel/...",
	}},
	{dir: "ops"},
	{dir: "ops/dashboard", may: []string{"github.com/grafana/grafana-foundation-sdk/go/..."}},
	{dir: "tools/..."},
	{dir: "proto/...", may: []string{grpc + "/...", protobuf + "/..."}}, // generated
	{dir: "conformance/...", may: []string{"..."}},
	{dir: "internal/grpctest", may: []string{grpc + "/..."}},
	{dir: "internal/inside"},
	{dir: "internal/racetest"},
	{dir: "internal/logtest"},
	{dir: "internal/check"},
	{dir: "internal/statustext"},
	{dir: "internal/details", may: []string{
		"google.golang.org/genproto/googleapis/rpc/errdetails", "google.golang.org/genproto/googleapis/rpc/status",
	}},
	{dir: "internal/stall", may: []string{grpc, grpc + "/status"}},
	{dir: "internal/archtest"},
	{dir: "internal/docs"},
	{dir: "examples/...", may: []string{"..."}},
}

// watched is what the packages import that only watch. Nobody may import them back, which the
// other rows see to.
var watched = []string{
	"admit", "broker", "interceptors/breaker", "interceptors/retry", "interceptors/throttle", "pressure", "streamcredit",
}

// matches reports whether name is what the pattern names.
func matches(pattern, name string) bool {
	if pattern == "..." {
		return true
	}
	if base, below := strings.CutSuffix(pattern, "/..."); below {
		return name == base || strings.HasPrefix(name, base+"/")
	}
	return name == pattern
}

func anyMatches(patterns []string, name string) bool {
	for _, p := range patterns {
		if matches(p, name) {
			return true
		}
	}
	return false
}

// checkImports returns what the packages in root import against the rules.
func checkImports(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		r, ok := ruleOf(p.dir)
		if !ok {
			problems = append(problems, p.dir+": no row of the import table names this package")
			continue
		}
		for _, f := range sorted(p.files) {
			problems = append(problems, r.check(p, f)...)
		}
	}
	return problems
}

func ruleOf(dir string) (rule, bool) {
	for _, r := range rules {
		if matches(r.dir, dir) {
			return r, true
		}
	}
	return rule{}, false
}

func (r rule) check(p *pkg, f *ast.File) (problems []string) {
	for _, spec := range f.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil || !r.allows(name) {
			problems = append(problems, fmt.Sprintf("%s: %s imports %s, which the import table does not allow",
				p.fset.Position(spec.Pos()), p.dir, name))
		}
	}
	if r.pure {
		problems = append(problems, impurities(p, f)...)
	}
	return problems
}

func (r rule) allows(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	if standard := !strings.Contains(first, "."); standard {
		return !anyMatches(r.not, name) && name != "C"
	}
	// Without the module's path, a package of the module cannot be mistaken for
	// any other: no domain is without a dot.
	return anyMatches(r.may, strings.TrimPrefix(name, module+"/"))
}

// clock is what package time offers to read the time or to wait for it.
var clock = map[string]bool{
	"Now": true, "Since": true, "Until": true, "Sleep": true,
	"After": true, "AfterFunc": true, "Tick": true, "NewTicker": true, "NewTimer": true,
}

// impurities returns where f reads the clock, waits for it or starts a goroutine.
func impurities(p *pkg, f *ast.File) (problems []string) {
	complain := func(n ast.Node, what string) {
		problems = append(problems, fmt.Sprintf("%s: %s %s", p.fset.Position(n.Pos()), p.dir, what))
	}
	local := "" // what f calls package time
	for _, spec := range f.Imports {
		if spec.Path.Value != `"time"` {
			continue
		}
		local = "time"
		if spec.Name != nil {
			local = spec.Name.Name
		}
		if local == "." {
			complain(spec, "imports time with a dot, which hides a reading of the clock")
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			complain(n, "starts a goroutine")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && local != "" && x.Name == local && clock[n.Sel.Name] {
				complain(n, "uses time."+n.Sel.Name)
			}
		}
		return true
	})
	return problems
}

// checkTestPackages returns the tests that live inside of the package that they
// test. A file named export_test.go may, to show others what they need, and so
// may the tests of a program, which nobody can import.
func checkTestPackages(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packages(t, root) {
		for name, f := range p.tests {
			exempt := f.Name.Name == "main" || path.Base(name) == "export_test.go"
			if !exempt && !strings.HasSuffix(f.Name.Name, "_test") {
				problems = append(problems, fmt.Sprintf("%s: its package is %s, want the external %[2]s_test", name, f.Name.Name))
			}
		}
	}
	return problems
}

func TestImports(t *testing.T)                 { report(t, checkImports(t, tree())) }
func TestTestPackagesAreExternal(t *testing.T) { report(t, checkTestPackages(t, tree())) }

// What a row allows is imported, so the table says how things are.
func TestTheImportTableAllowsNoMore(t *testing.T) {
	all := packagesEverywhere(t, tree())
	used := func(r rule, pattern string) bool {
		for _, p := range all {
			if first, ok := ruleOf(p.dir); !ok || first.dir != r.dir {
				continue
			}
			for _, f := range p.files {
				for _, spec := range f.Imports {
					name, err := strconv.Unquote(spec.Path.Value)
					if err == nil && matches(pattern, strings.TrimPrefix(name, module+"/")) {
						return true
					}
				}
			}
		}
		return false
	}
	for _, r := range rules {
		for _, pattern := range r.may {
			if pattern != "..." && !used(r, pattern) {
				t.Errorf("%s may import %s: got no such import, want one, or a shorter row", r.dir, pattern)
			}
		}
	}
}

func TestImportsCheck(t *testing.T) {
	for name, c := range map[string]struct {
		file, src string
		want      []string
	}{
		"limit, sync":        {"limit/x.go", `package limit; import "sync"`, []string{"limit imports sync,"}},
		"limit, sync/atomic": {"limit/x.go", `package limit; import "sync/atomic"`, []string{"imports sync/atomic"}},
		"limit, context":     {"limit/x.go", `package limit; import "context"`, []string{"imports context"}},
		"limit, admit":       {"limit/x.go", `package limit; import "` + module + `/admit"`, []string{"imports " + module + "/admit"}},
		"limit, math":        {"limit/x.go", `package limit; import ("math"; "time"); const d = math.Pi * time.Second`, nil},
		"limit, now":         {"limit/x.go", "package limit\nimport \"time\"\nvar x = time.Now()", []string{"limit/x.go:3:9: limit uses time.Now"}},
		"limit, now unused":  {"limit/x.go", "package limit\nimport clk \"time\"\nvar now = clk.Now", []string{"uses time.Now"}},
		"limit, time by dot": {"limit/x.go", "package limit\nimport . \"time\"\nvar x = Now()", []string{"with a dot"}},
		"limit, not time":    {"limit/x.go", "package limit\nimport \"time\"\nvar clk struct{ Now time.Time }\nvar x = clk.Now", nil},
		"limit, goroutine":   {"limit/x.go", "package limit\nfunc f() { go f() }", []string{"starts a goroutine"}},
		"limit, test":        {"limit/x_test.go", `package limit_test; import "sync"`, nil},
		"admit, limit":       {"admit/x.go", `package admit; import ("sync"; "` + module + `/limit")`, nil},
		"admit, grpc":        {"admit/x.go", `package admit; import "google.golang.org/grpc/codes"`, []string{"imports google.golang.org/grpc/codes"}},
		"admit, back":        {"admit/x.go", `package admit; import "` + module + `/metrics"`, []string{"/metrics"}},
		"admit, below limit": {"admit/x.go", `package admit; import "` + module + `/limit/x"`, []string{"/limit/x"}},
		"interceptors, all": {"interceptors/x.go", `package interceptors; import (
			"google.golang.org/grpc"; "google.golang.org/grpc/tap"; "` + module + `/interceptors/internal/refusal"; "` + module + `/admit")`, nil},
		"interceptors, below":        {"interceptors/breaker/x.go", `package breaker; import "` + module + `/interceptors"`, []string{"/interceptors,"}},
		"breaker, throttle":          {"interceptors/breaker/x.go", `package breaker; import "` + module + `/interceptors/throttle"`, []string{"/throttle,"}},
		"interceptors, back":         {"interceptors/x.go", `package interceptors; import "` + module + `/debug"`, []string{"/debug"}},
		"interceptors, not ours":     {"interceptors/x.go", `package interceptors; import "google.golang.org/grpcx"`, []string{"grpcx"}},
		"interceptors, genproto":     {"interceptors/x.go", `package interceptors; import "google.golang.org/genproto/googleapis/api"`, []string{"api"}},
		"interceptors, rapid":        {"interceptors/x.go", `package interceptors; import "pgregory.net/rapid"`, []string{"rapid"}},
		"streamcredit, all of it":    {"streamcredit/x.go", `package s; import ("google.golang.org/grpc/status"; "` + module + `/proto/weir/credit/v1")`, nil},
		"streamcredit, grpc's parts": {"streamcredit/x.go", `package s; import "google.golang.org/grpc/stats"`, []string{"imports google.golang.org/grpc/stats,"}},
		"metrics, all":               {"metrics/x.go", `package metrics; import ("` + module + `/admit"; "github.com/prometheus/client_golang/prometheus")`, nil},
		"metrics, debug":             {"metrics/x.go", `package metrics; import "` + module + `/debug"`, []string{"/debug"}},
		"grpctest, library":          {"internal/grpctest/x.go", `package grpctest; import "` + module + `/admit"`, []string{"/admit"}},
		"library, examples":          {"interceptors/x.go", `package interceptors; import "` + module + `/examples/demopb"`, []string{"demopb"}},
		"examples, anything":         {"examples/a/b/x.go", `package main; import ("example.com/x"; "` + module + `/debug")`, nil},
		"a package without a row":    {"limit/internal/x.go", `package x`, []string{"limit/internal: no row"}},
		"a package at the root":      {"x.go", `package weir`, []string{"no row"}},
		"assembly by the back way":   {"limit/x.go", `package limit; import "C"`, []string{"imports C"}},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblems(t, checkImports(t, synthetic(map[string]string{c.file: c.src})), c.want...)
		})
	}
}

func TestTestPackagesCheck(t *testing.T) {
	root := synthetic(map[string]string{
		"a/a_test.go":      "package a_test",
		"a/export_test.go": "package a",
		"b/b_test.go":      "package b",
		"c/c.go":           "package main",
		"c/c_test.go":      "package main",
	})
	wantProblems(t, checkTestPackages(t, root), "b/b_test.go: its package is b, want the external b_test")
}
