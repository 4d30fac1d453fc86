package docs_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the bodies of examples into the documents")

// root is the root of the module, seen from this package.
const root = "../.."

// documents returns the paths of all documents, from the root.
func documents(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, filepath.ToSlash(rel))
		}
	}
	if len(names) < 5 {
		t.Fatalf("documents: got %v, want README.md and more", names)
	}
	return names
}

// A block is a fenced block of Go in a document.
type block struct {
	line   int    // of the opening fence, from 1
	note   string // the content of the HTML comment in the line before the fence, if any
	code   string // with the final newline
	at, to int    // the code in the document, in bytes
}

var comment = regexp.MustCompile(`^<!-- (.*) -->$`)

// blocks returns the Go blocks of a document.
func blocks(text string) ([]block, error) {
	var all []block
	var open *block
	before, offset := "", 0
	for i, line := range strings.SplitAfter(text, "\n") {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case open != nil && bare == "```":
			open.to = offset
			open.code = text[open.at:open.to]
			all, open = append(all, *open), nil
		case open == nil && bare == "```go":
			open = &block{line: i + 1, at: offset + len(line)}
			if m := comment.FindStringSubmatch(before); m != nil {
				open.note = m[1]
			}
		}
		before = bare
		offset += len(line)
	}
	if open != nil {
		return nil, fmt.Errorf("line %d: the block has no end", open.line)
	}
	return all, nil
}

// A source is a parsed Go file of the tree.
type source struct {
	name  string
	text  []byte
	fset  *token.FileSet
	decls []ast.Decl
}

// read returns the content of a file, named from the root.
func read(t *testing.T, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parse(file string) (*source, error) {
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(file)))
	if err != nil {
		return nil, err
	}
	fset := token.NewFileSet()
	parsed, err := parser.ParseFile(fset, file, text, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	return &source{name: file, text: text, fset: fset, decls: parsed.Decls}, nil
}

// nameOf returns the name of a function, and of a method as in Type.Method.
func nameOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	return fmt.Sprintf("%s.%s", of, f.Name.Name)
}

// function returns the declaration of a function or method.
func (s *source) function(name string) (*ast.FuncDecl, error) {
	for _, d := range s.decls {
		if f, ok := d.(*ast.FuncDecl); ok && nameOf(f) == name {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s: got no function %s, want one", s.name, name)
}

func (s *source) between(from, to token.Pos) string {
	return string(s.text[s.fset.Position(from).Offset:s.fset.Position(to).Offset])
}

// body returns the body of a function as it would stand at the left margin.
func (s *source) body(name string) (string, error) {
	f, err := s.function(name)
	if err != nil {
		return "", err
	}
	text := s.between(f.Body.Lbrace+1, f.Body.Rbrace)
	return strings.TrimSpace(strings.ReplaceAll(text, "\n\t", "\n")) + "\n", nil
}

// whole returns functions with their comments.
func (s *source) whole(names []string) (string, error) {
	var parts []string
	for _, name := range names {
		f, err := s.function(name)
		if err != nil {
			return "", err
		}
		from := f.Pos()
		if f.Doc != nil {
			from = f.Doc.Pos()
		}
		parts = append(parts, s.between(from, f.End())+"\n")
	}
	return strings.Join(parts, "\n"), nil
}

// want returns the code that a block with such a note should have. It is empty where the block
// has to compile on its own.
func want(note string) (code string, checked bool, err error) {
	kind, ref, _ := strings.Cut(note, ": ")
	words := strings.Fields(ref)
	switch {
	case note == "not weir's":
		return "", false, nil
	case kind != "example" && kind != "functions":
		return "", true, nil
	case len(words) < 2:
		return "", true, fmt.Errorf("got %q, want a file and a name", note)
	}
	src, err := parse(words[0])
	if err != nil {
		return "", true, err
	}
	if kind == "functions" {
		code, err = src.whole(words[1:])
	} else {
		code, err = src.body(words[1])
	}
	return code, true, err
}

// Each block is up to date with its example, or is a whole program.
func TestBlocks(t *testing.T) {
	programs := map[string]string{} // by where they stand
	for _, name := range pages(t) {
		path := filepath.Join(root, name)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		all, err := blocks(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, b := range slices.Backward(all) { // offsets before b stay right when b changes
			where := fmt.Sprintf("%s:%d", name, b.line)
			code, checked, err := want(b.note)
			switch {
			case err != nil:
				t.Errorf("%s: %v", where, err)
			case !checked:
			case code == "":
				programs[where] = b.code
			case code != b.code && *update:
				text = text[:b.at] + code + text[b.to:]
			case code != b.code:
				t.Errorf("%s: the block is not what its example says (go test ./internal/docs -update); got:\n%s\nwant:\n%s", where, b.code, code)
			}
		}
		if text != string(raw) {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(programs) == 0 {
		t.Error("programs in the documents: got none, want those of README.md")
	}
	compile(t, programs)
}

// compile compiles each program in a module of its own that uses this one.
func compile(t *testing.T, programs map[string]string) {
	t.Helper()
	here, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	mod := read(t, "go.mod")
	sum := read(t, "go.sum")
	dir := t.TempDir()
	const module = "github.com/weir-go/weir"
	mod = bytes.Replace(mod, []byte("module "+module+"\n"), []byte("module example.com/documents\n"), 1)
	mod = fmt.Appendf(mod, "\nrequire %s v0.0.0\nreplace %s => %s\n", module, module, here)
	write(t, filepath.Join(dir, "go.mod"), mod)
	write(t, filepath.Join(dir, "go.sum"), sum)
	for where, code := range programs {
		if !strings.HasPrefix(code, "package ") && !strings.Contains(code, "\npackage ") {
			t.Errorf("%s: got a fragment, want a whole program or the comment that names an example", where)
			continue
		}
		write(t, filepath.Join(dir, strings.NewReplacer("/", "_", ":", "_", ".", "_").Replace(where), "main.go"), []byte(code))
	}
	cmd := exec.CommandContext(t.Context(), "go", "vet", "-mod=mod", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("go vet of the programs: got %v, want no error\n%s", err, out)
	}
}

// write writes a file, and the directories on its way.
func write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

// README.md is short enough to be read before lunch.
func TestReadmeLength(t *testing.T) {
	raw := read(t, "README.md")
	if got := bytes.Count(raw, []byte("\n")); got > 150 {
		t.Errorf("README.md: got %d lines, want at most 150", got)
	}
}

// The checks themselves: a block without an end, a fragment, a stale example and a fresh one.
func TestBlocksAreFound(t *testing.T) {
	text := "a\n<!-- example: x Y -->\n```go\nf()\n```\n```sh\nmake\n```\n```go\npackage main\n```\n"
	got, err := blocks(text)
	if err != nil || len(got) != 2 {
		t.Fatalf("got %v, %v, want two blocks", got, err)
	}
	if b := got[0]; b.note != "example: x Y" || b.code != "f()\n" || b.line != 3 || text[b.at:b.to] != b.code {
		t.Errorf("first block: got %+v, want the one with the note", b)
	}
	if b := got[1]; b.note != "" || b.code != "package main\n" {
		t.Errorf("second block: got %+v, want the program", b)
	}
	if _, err := blocks("```go\nx"); err == nil {
		t.Error("a block without an end: got no error, want one")
	}
	code, checked, err := want("example: internal/docs/docs_test.go write")
	if err != nil || !checked || !strings.HasPrefix(code, "t.Helper()\nif err := ") || !strings.HasSuffix(code, "\n\tt.Fatal(err)\n}\n") {
		t.Errorf("body of write: got %q, %v, %v, want its statements", code, checked, err)
	}
	code, _, err = want("functions: internal/docs/docs_test.go write")
	if err != nil || !strings.HasPrefix(code, "// write writes") || !strings.HasSuffix(code, "\t}\n}\n") {
		t.Errorf("all of write: got %q, %v, want it with its comment", code, err)
	}
	if _, _, err := want("example: internal/docs/docs_test.go nothing"); err == nil {
		t.Error("an example that does not exist: got no error, want one")
	}
	if _, checked, _ := want("not weir's"); checked {
		t.Error("a block of another library: got checked, want it left alone")
	}
}
