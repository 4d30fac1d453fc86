package archtest_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"testing"
)

// mistakesElsewhere lists the packages that still make such errors by hand.
var mistakesElsewhere = []string{"admit"}

// checkMistakes returns the calls of fmt.Errorf with ErrConfig or ErrInvalid. internal/check makes
// the errors of configurations, so that all have one form and name every mistake.
func checkMistakes(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		if !p.public() || anyMatches(mistakesElsewhere, p.dir) {
			continue
		}
		for _, f := range sorted(p.files) {
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if of, function := called(call); of != "fmt" || function != "Errorf" {
					return true
				}
				for _, arg := range call.Args {
					if name := lastName(arg); name == "ErrConfig" || name == "ErrInvalid" {
						problems = append(problems, fmt.Sprintf("%s: fmt.Errorf with %s, want check.Errors or check.One",
							p.fset.Position(call.Pos()), name))
					}
				}
				return true
			})
		}
	}
	return problems
}

// called returns the function that call calls and its package or variable, or "" twice.
func called(call *ast.CallExpr) (of, function string) {
	if sel, ok := call.Fun.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name, sel.Sel.Name
		}
	}
	return "", ""
}

// lastName returns the name of a variable, without its package, or "" if e is none.
func lastName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func TestMistakesOfConfigurations(t *testing.T) { report(t, checkMistakes(t, tree())) }

func TestMistakesOfConfigurationsCheck(t *testing.T) {
	root := synthetic(map[string]string{
		"a/a.go":          "package a\nimport \"fmt\"\nvar err = fmt.Errorf(\"%w: A: got 1\", ErrConfig)",
		"b/b.go":          "package b\nimport \"fmt\"\nvar err = fmt.Errorf(\"%w: A: got 1\", a.ErrInvalid)",
		"c/c.go":          "package c\nimport \"fmt\"\nvar err = fmt.Errorf(\"%w: the queue is full\", ErrFull)",
		"d/internal/d.go": "package d\nimport \"fmt\"\nvar err = fmt.Errorf(\"%w: A: got 1\", ErrConfig)",
	})
	wantProblems(t, checkMistakes(t, root), "a/a.go:3:11: fmt.Errorf with ErrConfig", "b/b.go:3:11: fmt.Errorf with ErrInvalid")
}
