package archtest_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"path"
	"testing"
)

// statusFiles lists the files that make and read the statuses of their package.
var statusFiles = map[string]string{"streamcredit": "status.go"}

// checkStatuses returns the places that make or read a status outside of these files. One file
// then has every code, and no two places give one error two statuses.
func checkStatuses(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		home, ok := statusFiles[p.dir]
		if !ok {
			continue
		}
		for _, f := range sorted(p.files) {
			if path.Base(p.fset.Position(f.Pos()).Filename) == home {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if of, function := called(call); of == "status" {
						problems = append(problems, fmt.Sprintf("%s: calls status.%s, want it in %s", p.fset.Position(n.Pos()), function, home))
					}
				}
				return true
			})
		}
	}
	return problems
}

func TestStatuses(t *testing.T) { report(t, checkStatuses(t, tree())) }

func TestStatusesCheck(t *testing.T) {
	root := synthetic(map[string]string{
		"streamcredit/status.go": "package s\nvar err = status.Error(codes.Internal, \"\")",
		"streamcredit/a.go":      "package s\nvar end func(*status.Status) error\nvar err = status.Error(codes.Internal, \"\")",
		"other/a.go":             "package o\nvar err = status.Error(codes.Internal, \"\")",
	})
	wantProblems(t, checkStatuses(t, root), "streamcredit/a.go:3:11: calls status.Error, want it in status.go")
}
