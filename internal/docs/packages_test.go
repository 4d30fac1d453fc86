package docs_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// docLink matches a link of a doc comment, which Markdown would show as it is.
var docLink = regexp.MustCompile(`\[([\w.*]+)\]`)

// packagesTable returns the list of docs/packages.md: each package of the tree with the first
// sentence of its documentation. Packages with generated code alone have none.
func packagesTable(t *testing.T) []byte {
	t.Helper()
	var table bytes.Buffer
	table.WriteString("# Packages\n\nOne line for each package, from its documentation (`go test ./internal/docs -update`).\n" +
		"[CONTRIBUTING.md](../CONTRIBUTING.md) has the questions that a reader of the code asks.\n\n| package | what it is |\n|---|---|\n")
	seen := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules" || name == "out") {
				return filepath.SkipDir
			}
			return nil
		}
		dir, _ := filepath.Rel(root, filepath.Dir(path))
		if seen[dir] || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		if f.Doc == nil || ast.IsGenerated(f) {
			return nil
		}
		seen[dir] = true
		//nolint:staticcheck // doc.Package needs the other files too
		line := docLink.ReplaceAllString(doc.Synopsis(f.Doc.Text()), "$1")
		fmt.Fprintf(&table, "| [`%s`](../%[1]s) | %s |\n", filepath.ToSlash(dir), strings.ReplaceAll(line, "|", `\|`))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) < 50 {
		t.Errorf("packages: got %d, want all of the tree", len(seen))
	}
	return table.Bytes()
}

// The list of packages is that of the tree, so a new package is in it.
func TestPackages(t *testing.T) {
	path := filepath.Join(root, "docs", "packages.md")
	want := packagesTable(t)
	got, err := os.ReadFile(path)
	switch {
	case err == nil && bytes.Equal(got, want):
	case *update:
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("docs/packages.md: got another list (%v) than the documentation of the packages gives (go test ./internal/docs -update)", err)
	}
}
