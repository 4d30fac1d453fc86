package archtest_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"strings"
	"testing"
)

// A number that an exported field holds has one of three types; CONTRIBUTING.md has the rule.

// credits are the fields of streamcredit that hold credit. The protocol counts it as int64, and the
// largest int64 means that there is no bound.
var credits = []string{"Credit", "Demand", "Outstanding", "Window", "Messages"}

// sizes are the fields that hold bytes, besides the fields with a name that ends in Bytes.
var sizes = []string{
	"pressure.MemoryConfig.Limit", "broker/brokertest.Consumer.ByteWindow", "interceptors.ServerConfig.Memory",
	"interceptors/memory.Sizes.Memory", "interceptors/memory.Stats.Limit", "interceptors/memory.Stats.Used",
}

// foreign are the fields that have the type of another module.
var foreign = []string{"MaxConcurrentStreams", "StreamWindow", "ConnWindow"}

// checkNumbers returns the exported fields of public packages with another type of number.
func checkNumbers(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		if !p.public() || p.generated() {
			continue
		}
		for _, f := range sorted(p.files) {
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok || !spec.Name.IsExported() {
					return true
				}
				fields, ok := spec.Type.(*ast.StructType)
				if !ok {
					return true
				}
				for _, field := range fields.Fields.List {
					got := numberOf(field.Type)
					for _, name := range field.Names {
						if got == "" || !name.IsExported() || anyMatches(foreign, name.Name) {
							continue
						}
						if want := numberType(p.dir, spec.Name.Name, name.Name, got); got != want {
							problems = append(problems, fmt.Sprintf("%s: %s.%s: got type %s, want %s",
								p.fset.Position(name.Pos()), spec.Name.Name, name.Name, got, want))
						}
					}
				}
				return true
			})
		}
	}
	return problems
}

// numberType returns the type that a field should have. A uint64 is right in a struct of totals.
// The test cannot tell a total from another number, but a total of bytes by its struct.
func numberType(dir, of, name, got string) string {
	stats := strings.HasSuffix(of, "Stats") && !strings.HasPrefix(of, "Budget")
	switch {
	case strings.HasSuffix(name, "Bytes") && stats:
		return "uint64"
	case strings.HasSuffix(name, "Bytes") || anyMatches(sizes, dir+"."+of+"."+name) || dir == "streamcredit" && anyMatches(credits, name):
		return "int64"
	case got == "uint64" && (stats || holdsTotals[of]):
		return "uint64"
	}
	return "int"
}

// holdsTotals lists structs with totals besides the structs with a name that ends in Stats.
var holdsTotals = map[string]bool{"Moment": true, "RefusedCall": true, "UnconsumedError": true}

// numberOf returns the type of a number, of the elements of an array or of the values of a map, or
// "" for any other type.
func numberOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		if strings.HasPrefix(e.Name, "int") || strings.HasPrefix(e.Name, "uint") {
			return e.Name
		}
	case *ast.ArrayType:
		return numberOf(e.Elt)
	case *ast.MapType:
		return numberOf(e.Value)
	}
	return ""
}

func TestNumbers(t *testing.T) { report(t, checkNumbers(t, tree())) }

func TestNumbersCheck(t *testing.T) {
	root := synthetic(map[string]string{
		"streamcredit/a.go": `package a
type MeterStats struct {
	Sent, SentBytes uint64
	Streams         int
	Credit          int64
	Kinds           map[string]uint64
	Waiting         [2]int
}
type Config struct{ MaxBytes int64; MaxAttempts int; MaxConcurrentStreams uint32 }
type wrong struct{ Calls int64 }`,
		"streamcredit/b.go": `package b
type MeterStats struct {
	ReceivedBytes int64
	Streams       int64
	Window        int
}
type Config struct{ MaxBytes int; Places uint64; Small uint32 }`,
		"broker/b.go": `package b
type Config struct { Demand int }`,
	})
	wantProblems(t, checkNumbers(t, root),
		"MeterStats.ReceivedBytes: got type int64, want uint64", "MeterStats.Streams: got type int64, want int",
		"MeterStats.Window: got type int, want int64", "Config.MaxBytes: got type int, want int64",
		"Config.Places: got type uint64, want int", "Config.Small: got type uint32, want int")
}
