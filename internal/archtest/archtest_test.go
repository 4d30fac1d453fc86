package archtest_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// module is the path of the library's module.
const module = "github.com/weir-go/weir"

// tree is the root of the module, which go test runs this package two levels under.
func tree() fs.FS { return os.DirFS("../..") }

// A pkg is one directory of Go files.
type pkg struct {
	dir   string // from the root of the tree, with slashes
	fset  *token.FileSet
	files map[string]*ast.File // by path; without tests
	tests map[string]*ast.File
}

// packages parses every Go file of the module in root, whatever its build
// constraints, by directory. Modules inside the module are not part of it.
func packages(t *testing.T, root fs.FS) []*pkg {
	t.Helper()
	return walk(t, root, func(dir string) bool {
		_, err := fs.Stat(root, path.Join(dir, "go.mod"))
		return err == nil
	})
}

// packagesEverywhere returns the packages of the library, and those of the modules beside it.
func packagesEverywhere(t *testing.T, root fs.FS) []*pkg {
	t.Helper()
	return walk(t, root, func(dir string) bool { return path.Base(dir) == "node_modules" })
}

// walk returns the packages in root, without the directories that skip names.
func walk(t *testing.T, root fs.FS, skip func(dir string) bool) []*pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enter(name, skip)
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		src, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		return addFile(byDir, name, src)
	})
	if err != nil {
		t.Fatalf("reading the tree: %v", err)
	}
	pkgs := make([]*pkg, 0, len(byDir))
	for _, p := range byDir {
		pkgs = append(pkgs, p)
	}
	slices.SortFunc(pkgs, func(a, b *pkg) int { return strings.Compare(a.dir, b.dir) })
	return pkgs
}

// enter says, as a directory is come to, whether the go command looks into it too.
func enter(dir string, skip func(dir string) bool) error {
	if dir == "." {
		return nil
	}
	base := path.Base(dir)
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if skip(dir) {
		return fs.SkipDir
	}
	return nil
}

func addFile(byDir map[string]*pkg, name string, src []byte) error {
	dir := path.Dir(name)
	p := byDir[dir]
	if p == nil {
		p = &pkg{dir: dir, fset: token.NewFileSet(), files: map[string]*ast.File{}, tests: map[string]*ast.File{}}
		byDir[dir] = p
	}
	file, err := parser.ParseFile(p.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if strings.HasSuffix(name, "_test.go") {
		p.tests[name] = file
	} else {
		p.files[name] = file
	}
	return nil
}

// public reports whether users of the library may import p.
func (p *pkg) public() bool {
	top, _, _ := strings.Cut(p.dir, "/")
	internal := strings.Contains("/"+p.dir+"/", "/internal/")
	return len(p.files) > 0 && !internal && top != "examples" && top != "conformance"
}

// generated reports whether all of p was written by a program.
func (p *pkg) generated() bool {
	for _, f := range p.files {
		if !ast.IsGenerated(f) && (len(f.Decls) > 0 || f.Doc == nil) { // a doc.go beside it does not count
			return false
		}
	}
	return true
}

// sorted returns the files of m in the order of their names.
func sorted(m map[string]*ast.File) []*ast.File {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	files := make([]*ast.File, len(names))
	for i, name := range names {
		files[i] = m[name]
	}
	return files
}

// report fails t once for each problem.
func report(t *testing.T, problems []string) {
	t.Helper()
	for _, p := range problems {
		t.Error(p)
	}
}

// synthetic is a tree that exists only in a test: contents by path.
func synthetic(files map[string]string) fs.FS {
	tree := fstest.MapFS{}
	for name, content := range files {
		tree[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return tree
}

// wantProblems compares what a check found with what it should have: want holds
// a part of each problem, in order.
func wantProblems(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("problems = %d: %q, want %d: %q", len(got), got, len(want), want)
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("problem %d = %q, want it to say %q", i, got[i], want[i])
		}
	}
}

// Were the tree read from the wrong place, every check would pass.
func TestTheTreeIsRead(t *testing.T) {
	var dirs []string
	for _, p := range packages(t, tree()) {
		dirs = append(dirs, p.dir)
	}
	for _, want := range []string{"limit", "examples/demopb", "internal/archtest"} {
		if !slices.Contains(dirs, want) {
			t.Errorf("packages of the module = %v, want %s among them", dirs, want)
		}
	}
}

func TestTheTreeIsReadAsGoDoes(t *testing.T) {
	root := synthetic(map[string]string{
		"a/a.go":            "package a",
		"a/a_test.go":       "package a_test",
		"a/testdata/x.go":   "not Go",
		"_old/x.go":         "not Go",
		".hidden/x.go":      "not Go",
		"examples/m/go.mod": "module m",
		"examples/m/m.go":   "not Go",
		"examples/p/p.go":   "package main",
	})
	pkgs := packages(t, root)
	if len(pkgs) != 2 || pkgs[0].dir != "a" || pkgs[1].dir != "examples/p" {
		t.Fatalf("packages = %v, want a and examples/p", pkgs)
	}
	if a := pkgs[0]; len(a.files) != 1 || len(a.tests) != 1 || !a.public() {
		t.Errorf("a has %d files and %d tests, public %t; want 1, 1, true", len(a.files), len(a.tests), a.public())
	}
	if pkgs[1].public() {
		t.Error("examples/p is public, want it not to be")
	}
}
