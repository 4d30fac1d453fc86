package archtest_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"testing"
)

// checkVisible returns the exported types, fields and functions of public packages that mention
// an unexported name of their package. A user cannot write such a type, and go doc does
// not explain it.
func checkVisible(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		if !p.public() || p.generated() {
			continue
		}
		hidden := hiddenNames(p)
		complain := func(what string, e ast.Node) {
			names := map[*ast.Ident]bool{} // of parameters and fields, which are no types
			ast.Inspect(e, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.SelectorExpr: // a name of another package
					return false
				case *ast.Field:
					for _, name := range n.Names {
						names[name] = true
					}
				case *ast.Ident:
					if hidden[n.Name] && !names[n] {
						problems = append(problems, fmt.Sprintf("%s: %s shows %s, which is not exported", p.fset.Position(n.Pos()), what, n.Name))
					}
				}
				return true
			})
		}
		for _, f := range sorted(p.files) {
			for _, d := range f.Decls {
				visit(d, complain)
			}
		}
	}
	return problems
}

// hiddenNames returns the unexported constants and types of a package.
func hiddenNames(p *pkg) map[string]bool {
	hidden := map[string]bool{}
	for _, f := range sorted(p.files) {
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE && g.Tok != token.CONST {
				continue
			}
			for _, spec := range g.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					hidden[spec.Name.Name] = !spec.Name.IsExported()
				case *ast.ValueSpec:
					for _, n := range spec.Names {
						hidden[n.Name] = !n.IsExported()
					}
				}
			}
		}
	}
	return hidden
}

// visit calls f with the type of each exported field, parameter and result in a
// declaration. Type parameters have their own names and are left out.
func visit(d ast.Decl, f func(what string, e ast.Node)) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if !d.Name.IsExported() || d.Recv != nil && !ast.IsExported(receiver(d.Recv.List[0].Type)) {
			return
		}
		for _, list := range []*ast.FieldList{d.Type.Params, d.Type.Results} {
			if list == nil {
				continue
			}
			for _, field := range list.List {
				f(d.Name.Name, field.Type)
			}
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			ts, ok := spec.(*ast.TypeSpec)
			if !ok || !ts.Name.IsExported() {
				continue
			}
			switch of := ts.Type.(type) {
			case *ast.StructType:
				visitMembers(ts.Name.Name, of.Fields, f)
			case *ast.InterfaceType: // its unexported methods seal it
				visitMembers(ts.Name.Name, of.Methods, f)
			default:
				f(ts.Name.Name, of)
			}
		}
	}
}

// visitMembers calls f with the type of each exported field or method of a type.
func visitMembers(of string, members *ast.FieldList, f func(what string, e ast.Node)) {
	for _, m := range members.List {
		for _, n := range m.Names {
			if n.IsExported() {
				f(of+"."+n.Name, m.Type)
			}
		}
	}
}

// checkKinds returns the exported types with several constants whose comment does not name
// each of them. go doc shows only the first constant of a group.
func checkKinds(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		if !p.public() || p.generated() {
			continue
		}
		docs, constants := map[string]string{}, map[string][]string{}
		for _, f := range sorted(p.files) {
			for _, d := range f.Decls {
				if g, ok := d.(*ast.GenDecl); ok {
					kinds(g, docs, constants)
				}
			}
		}
		for _, kind := range slices.Sorted(maps.Keys(constants)) {
			doc, exported := docs[kind]
			for _, name := range constants[kind] {
				if exported && len(constants[kind]) > 1 && !mentions(doc, name) {
					problems = append(problems, fmt.Sprintf("%s: the comment of %s does not name %s", p.dir, kind, name))
				}
			}
		}
	}
	return problems
}

// kinds adds the comments of exported types, and the exported constants of each type.
func kinds(g *ast.GenDecl, docs map[string]string, constants map[string][]string) {
	kind := "" // of the constants: that of the line before unless a line has a value
	for _, spec := range g.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() {
				docs[spec.Name.Name] = g.Doc.Text() + " " + spec.Doc.Text()
			}
		case *ast.ValueSpec:
			if id, ok := spec.Type.(*ast.Ident); ok {
				kind = id.Name
			} else if len(spec.Values) > 0 {
				kind = ""
			}
			for _, n := range spec.Names {
				if g.Tok == token.CONST && kind != "" && n.IsExported() {
					constants[kind] = append(constants[kind], n.Name)
				}
			}
		}
	}
}

// checkOptions returns the exported functions that return an option of their package and have
// another name than the others. A user looks for options below With.
func checkOptions(t *testing.T, root fs.FS) (problems []string) {
	t.Helper()
	for _, p := range packagesEverywhere(t, root) {
		if !p.public() || p.generated() {
			continue
		}
		for _, f := range sorted(p.files) {
			for _, d := range f.Decls {
				d, ok := d.(*ast.FuncDecl)
				if !ok || d.Recv != nil || !d.Name.IsExported() || d.Type.Results == nil {
					continue
				}
				first, ok := d.Type.Results.List[0].Type.(*ast.Ident)
				name := d.Name.Name
				if ok && strings.HasSuffix(first.Name, "Option") && !strings.HasPrefix(name, "With") && name != "FromJSON" {
					problems = append(problems, fmt.Sprintf("%s: %s returns an option, want a name that begins with With", p.fset.Position(d.Pos()), name))
				}
			}
		}
	}
	return problems
}

func TestOptions(t *testing.T) { report(t, checkOptions(t, tree())) }

func TestOptionsCheck(t *testing.T) {
	const head = "package a\ntype Option interface{}\n"
	for name, c := range map[string]struct {
		src  string
		want []string
	}{
		"With":         {"func WithA() Option { return nil }", nil},
		"another":      {"func AllowA() Option { return nil }", []string{"AllowA returns an option"}},
		"of one side":  {"type SendOption interface{}\nfunc AOnly() (SendOption, error) { return nil, nil }", []string{"AOnly returns an option"}},
		"from JSON":    {"func FromJSON([]byte) (Option, error) { return nil, nil }", nil},
		"a method":     {"func (A) B() Option { return nil }", nil},
		"not exported": {"func a() Option { return nil }", nil},
		"another type": {"func A() (int, Option) { return 0, nil }", nil},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblems(t, checkOptions(t, synthetic(map[string]string{"a/a.go": head + c.src})), c.want...)
		})
	}
}

func TestVisible(t *testing.T) { report(t, checkVisible(t, tree())) }

func TestKinds(t *testing.T) { report(t, checkKinds(t, tree())) }

func TestVisibleCheck(t *testing.T) {
	const head = "package a\ntype t int\nconst n = 3\n"
	for name, c := range map[string]struct {
		src  string
		want []string
	}{
		"exported":         {head + "type T struct {\nF [3]int\nG map[string]T\n}\nfunc F(T) *T { return nil }", nil},
		"an array":         {head + "type T struct {\nF [n]int\n}", []string{"a/a.go:5:4: T.F shows n"}},
		"an array inside":  {head + "type T struct {\nF map[int][]*[n]t\n}", []string{"T.F shows n", "T.F shows t"}},
		"not exported":     {head + "type T struct {\nf [n]t\n}\nfunc f(t) {}\nfunc (t) M() t { return 0 }", nil},
		"a parameter":      {head + "func F(a t) {}", []string{"F shows t"}},
		"a result":         {head + "type T int\nfunc (T) M() (int, t) { return 0, 0 }", []string{"M shows t"}},
		"a method":         {head + "type T interface {\nM() t\n}", []string{"T.M shows t"}},
		"a sealed type":    {head + "type T interface {\nm(t)\n}", nil},
		"another type":     {head + "type T t", []string{"T shows t"}},
		"a function type":  {head + "type T func(t)", []string{"T shows t"}},
		"a parameter name": {head + "type T struct {\nF func(t, n string)\n}\nfunc F(t int) {}", nil},
		"another package":  {head + "import \"b\"\ntype T struct {\nF b.t\n}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			src := strings.Replace(c.src, "import \"b\"\n", "", 1)
			if src != c.src {
				src = strings.Replace(src, "package a\n", "package a\nimport \"b\"\n", 1)
			}
			wantProblems(t, checkVisible(t, synthetic(map[string]string{"a/a.go": src})), c.want...)
		})
	}
	internal := map[string]string{"internal/a/a.go": head + "type T struct {\nF [n]int\n}"}
	wantProblems(t, checkVisible(t, synthetic(internal)))
}

func TestKindsCheck(t *testing.T) {
	const constants = "const (\nA T = iota\nB\n\nMost = 2\n)\nconst c T = 5\n"
	for name, c := range map[string]struct {
		src  string
		want []string
	}{
		"named":        {"package a\n// A T is A or B.\ntype T int\n" + constants, nil},
		"not named":    {"package a\n// A T is one of several.\ntype T int\n" + constants, []string{"a: the comment of T does not name B"}},
		"no comment":   {"package a\ntype T int\n" + constants, []string{"name A", "name B"}},
		"one constant": {"package a\n// The T.\ntype T int\nconst A T = 1\n", nil},
		"not exported": {"package a\ntype t int\nconst (\nA t = iota\nB\n)\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblems(t, checkKinds(t, synthetic(map[string]string{"a/a.go": c.src})), c.want...)
		})
	}
}
