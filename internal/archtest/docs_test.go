package archtest_test

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/token"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"unicode"
)

// A surface is what one file offers: it walks the exported names of the file and
// keeps those that say nothing.
type surface struct {
	p            *pkg
	count        int // exported names of packages: types, functions, methods, constants, variables
	undocumented []string
}

// name notes an exported name; any of the comments documents it.
func (s *surface) name(what string, at token.Pos, comments ...*ast.CommentGroup) {
	for _, c := range comments {
		if strings.TrimSpace(c.Text()) != "" {
			return
		}
	}
	s.undocumented = append(s.undocumented, fmt.Sprintf("%s: %s is exported and has no doc comment", s.p.fset.Position(at), what))
}

func (s *surface) file(f *ast.File) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			s.function(d)
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				s.spec(d, spec)
			}
		}
	}
}

func (s *surface) function(d *ast.FuncDecl) {
	name := d.Name.Name
	if d.Recv != nil {
		on := receiver(d.Recv.List[0].Type)
		if !ast.IsExported(on) {
			return
		}
		name = on + "." + name
	}
	if d.Name.IsExported() {
		s.count++
		s.name(name, d.Pos(), d.Doc)
	}
}

// receiver returns the name of a receiver's type, without * and type parameters.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.IndexListExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// spec notes a type, a constant or a variable. The comment of a group documents
// its constants and variables; a type needs its own.
func (s *surface) spec(d *ast.GenDecl, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.TypeSpec:
		if !spec.Name.IsExported() {
			return
		}
		s.count++
		own := spec.Doc
		if !d.Lparen.IsValid() {
			own = d.Doc
		}
		s.name(spec.Name.Name, spec.Pos(), own)
		s.members(spec)
	case *ast.ValueSpec:
		for _, n := range spec.Names {
			if n.IsExported() {
				s.count++
				s.name(n.Name, n.Pos(), d.Doc, spec.Doc, spec.Comment)
			}
		}
	}
}

// members notes the exported fields of a struct and the methods of an interface.
// The comment of one may name the next ones and so document them.
func (s *surface) members(spec *ast.TypeSpec) {
	var list *ast.FieldList
	switch t := spec.Type.(type) {
	case *ast.StructType:
		list = t.Fields
	case *ast.InterfaceType:
		list = t.Methods
	default:
		return
	}
	above := "" // the last comment: it may speak of the members that follow, too
	for _, f := range list.List {
		own := f.Doc.Text() + f.Comment.Text()
		for _, n := range f.Names {
			if n.IsExported() && !mentions(above, n.Name) {
				s.name(spec.Name.Name+"."+n.Name, n.Pos(), f.Doc, f.Comment)
			}
		}
		if own != "" {
			above = own
		}
	}
}

// mentions reports whether the text speaks of the name.
func mentions(text, name string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), name)
}

// checkDocs returns the exported names of public packages that have no doc
// comment, the packages that have none, and how many names each package exports.
// Generated code is not judged.
func checkDocs(t *testing.T, root fs.FS) (problems []string, exported map[string]int) {
	t.Helper()
	exported = map[string]int{}
	for _, p := range packagesEverywhere(t, root) {
		if !p.public() {
			continue
		}
		s := surface{p: p}
		documented := false
		for _, f := range sorted(p.files) {
			documented = documented || f.Doc.Text() != ""
			if !ast.IsGenerated(f) {
				s.file(f)
			}
		}
		if !documented {
			problems = append(problems, p.dir+": the package has no doc comment")
		}
		problems = append(problems, s.undocumented...)
		exported[p.dir] = s.count
	}
	return problems, exported
}

// checkExamples returns the public packages without an example that runs, which
// is one with an Output comment.
func checkExamples(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packages(t, root) {
		if !p.public() || p.generated() {
			continue
		}
		runs := 0
		for _, e := range doc.Examples(sorted(p.tests)...) {
			if e.Output != "" || e.EmptyOutput {
				runs++
			}
		}
		if runs == 0 {
			problems = append(problems, p.dir+": no Example with an Output comment")
		}
	}
	return problems
}

func TestDocs(t *testing.T) {
	problems, exported := checkDocs(t, tree())
	report(t, problems)
	t.Logf("exported names: %v", exported) // for review; how many are too many is a judgement
}

func TestExamples(t *testing.T) { report(t, checkExamples(t, tree())) }

func TestDocsCheck(t *testing.T) {
	const head = "// Package a is documented.\npackage a\n"
	for name, c := range map[string]struct {
		src  string
		want []string
	}{
		"documented": {head + `
// T is.
type T struct {
	// F is.
	F int
	G int // G is.
	h int
}
// M is.
func (*T) M() {}
// I is.
type I interface {
	// N does.
	N()
	o()
}
// Groups are.
const (
	A = iota
	B
)
var (
	// V is.
	V int
	W int // W is.
)
type u struct{ F int }
func (u) M() {}
func f() {}
`, nil},
		"package":             {"package a", []string{"a: the package"}},
		"function":            {head + "func F() {}", []string{"a/a.go:3:1: F is"}},
		"type":                {head + "type T int", []string{"T is"}},
		"alias":               {head + "type T = int", []string{"T is"}},
		"type in a group":     {head + "// Types.\ntype (\nT int\n)", []string{"T is"}},
		"method":              {head + "// T is.\ntype T int\nfunc (T) M() {}", []string{"T.M is"}},
		"method by pointer":   {head + "// T is.\ntype T int\nfunc (*T) M() {}", []string{"T.M is"}},
		"method, generic":     {head + "// T is.\ntype T[A, B any] int\nfunc (*T[A, B]) M() {}\nfunc (T[_, _]) N() {}", []string{"T.M is", "T.N is"}},
		"field":               {head + "// T is.\ntype T struct {\nF, G int\n}", []string{"T.F is", "T.G is"}},
		"fields, one named":   {head + "// T is.\ntype T struct {\n// F is, and H is.\nF int\ng int\nH int\nI int\n}", []string{"T.I is"}},
		"half a name":         {head + "// T is.\ntype T struct {\n// F is, and Half is.\nF int\nH int\n}", []string{"T.H is"}},
		"method of interface": {head + "// T is.\ntype T interface {\nM()\n}", []string{"T.M is"}},
		"constant":            {head + "const C = 1", []string{"C is"}},
		"variables":           {head + "var A, B int", []string{"A is", "B is"}},
		"a directive only":    {head + "//go:noinline\nfunc F() {}", []string{"F is"}},
		"generated":           {"// Code generated by hand. DO NOT EDIT.\n\n" + head + "func F() {}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := checkDocs(t, synthetic(map[string]string{"a/a.go": c.src}))
			wantProblems(t, got, c.want...)
		})
	}
	t.Run("not public", func(t *testing.T) {
		got, exported := checkDocs(t, synthetic(map[string]string{
			"internal/a/a.go":   "package a; func F() {}",
			"b/internal/a/a.go": "package a; func F() {}",
			"examples/a/a.go":   "package a; func F() {}",
			"a/a_test.go":       "package a_test; func F() {}",
			"b/b.go":            "// Package b is.\npackage b\n// T is.\ntype T struct {\n// F is.\nF int\n}\n// M is.\nfunc (T) M() {}",
		}))
		wantProblems(t, got)
		if len(exported) != 1 || exported["b"] != 2 {
			t.Errorf("exported names = %v, want 2 of b: T and T.M", exported)
		}
	})
}

func TestExamplesCheck(t *testing.T) {
	const code = "package a; func F() {}"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"runs":      {map[string]string{"a/a.go": code, "a/x_test.go": "package a_test\nfunc Example() {\n\tprintln()\n\t// Output: x\n}"}, nil},
		"unordered": {map[string]string{"a/a.go": code, "a/x_test.go": "package a_test\nfunc ExampleF() {\n\t// Unordered output:\n\t// x\n}"}, nil},
		"silent":    {map[string]string{"a/a.go": code, "a/x_test.go": "package a_test\nfunc ExampleF() {\n\t// Output:\n}"}, nil},
		"no output": {map[string]string{"a/a.go": code, "a/x_test.go": "package a_test\nfunc ExampleF() {}"}, []string{"a: no Example"}},
		"no tests":  {map[string]string{"a/a.go": code}, []string{"a: no Example"}},
		"generated": {map[string]string{
			"a/a.go":   "// Code generated by hand. DO NOT EDIT.\n\n" + code,
			"a/doc.go": "// Package a is generated.\npackage a",
		}, nil},
		"partly generated": {map[string]string{"a/a.go": "// Code generated by hand. DO NOT EDIT.\n\n" + code, "a/b.go": code}, []string{"a: no Example"}},
	} {
		t.Run(name, func(t *testing.T) { wantProblems(t, checkExamples(t, synthetic(c.files)), c.want...) })
	}
}
