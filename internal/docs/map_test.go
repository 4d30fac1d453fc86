package docs_test

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// code matches a piece of code in a line of Markdown.
var code = regexp.MustCompile("`([^`]+)`")

// fileName matches a path of the tree, and a name of a file without its directory.
var fileName = regexp.MustCompile(`^[\w./-]+/[\w./-]+$|^[\w-]+\.(go|proto|yml|md)$`)

// An entry is a row of the map in CONTRIBUTING.md.
type entry struct {
	question string
	paths    []string // files and directories, from the root
	names    []string // identifiers that stand in one of them
}

// entriesOf reads the map. A name without a directory is a file beside the one before it, or
// below the directory of that one.
func entriesOf(text string, exists func(name string) bool) (all []entry, wrong []string) {
	_, text, _ = strings.Cut(text, "| question | answer |")
	for line := range strings.SplitSeq(text, "\n") {
		question, answer, ok := strings.Cut(strings.Trim(line, "| "), " | ")
		if !ok || strings.HasPrefix(question, "---") {
			continue
		}
		e, dir := entry{question: question}, ""
		for _, m := range code.FindAllStringSubmatch(answer, -1) {
			name := m[1]
			if !fileName.MatchString(name) {
				e.names = append(e.names, name[strings.LastIndex(name, ".")+1:])
				continue
			}
			switch beside := path.Join(dir, name); {
			case strings.Contains(name, "/") && exists(name):
			case dir != "" && exists(beside):
				name = beside
			default:
				wrong = append(wrong, question+": got "+name+", want a file of the tree")
				continue
			}
			e.paths = append(e.paths, name)
			if dir = name; path.Ext(name) != "" {
				dir = path.Dir(name)
			}
		}
		if len(e.paths) == 0 {
			wrong = append(wrong, question+": got no file, want the one that has the answer")
		}
		all = append(all, e)
	}
	return all, wrong
}

// says reports whether one of the files has the name as a word. Of a directory it reads the
// Go files.
func says(t *testing.T, paths []string, name string) bool {
	t.Helper()
	word := regexp.MustCompile(`\b` + regexp.QuoteMeta(name) + `\b`)
	return slices.ContainsFunc(paths, func(p string) bool {
		files := []string{filepath.Join(root, p)}
		if path.Ext(p) == "" {
			files, _ = filepath.Glob(filepath.Join(root, p, "*.go"))
		}
		return slices.ContainsFunc(files, func(f string) bool {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			return word.Match(raw)
		})
	})
}

// The map in CONTRIBUTING.md leads to files that are there, and to names that stand in them.
func TestMap(t *testing.T) {
	raw := read(t, "CONTRIBUTING.md")
	all, wrong := entriesOf(string(raw), func(name string) bool {
		_, err := os.Stat(filepath.Join(root, filepath.FromSlash(name)))
		return err == nil
	})
	for _, w := range wrong {
		t.Errorf("CONTRIBUTING.md: %s", w)
	}
	if len(all) < 20 {
		t.Errorf("questions in CONTRIBUTING.md: got %d, want at least 20", len(all))
	}
	for _, e := range all {
		for _, name := range e.names {
			if !says(t, e.paths, name) {
				t.Errorf("CONTRIBUTING.md: %s: got the name %s, want one that stands in %v", e.question, name, e.paths)
			}
		}
	}
}

// The check itself.
func TestMapIsRead(t *testing.T) {
	there := []string{"a/b.go", "a/c.go", "a/in", "a/in/d.go", "x.yml"}
	text := "| question | answer |\n|---|---|\n| One? | `a/b.go`, `F`; `c.go`, `in/d.go` |\n| Two? | `c.go` |\n| Three? | `pkg.F` by hand |\n| Four? | `a/e.go` |\n"
	got, wrong := entriesOf(text, func(name string) bool { return slices.Contains(there, name) })
	if len(got) != 4 || !slices.Equal(got[0].paths, []string{"a/b.go", "a/c.go", "a/in/d.go"}) || !slices.Equal(got[0].names, []string{"F"}) {
		t.Errorf("entries: got %+v, want four, and the first with three files and F", got)
	}
	if want := 5; len(wrong) != want { // a file missed, and so an entry without one, twice; an entry without a file
		t.Errorf("faults: got %q, want %d", wrong, want)
	}
	if says(t, []string{"internal/docs"}, "thisName"+"IsNowhere") {
		t.Error("a name that is nowhere: got found, want not found")
	}
	if !says(t, []string{"internal/docs"}, "TestMapIsRead") {
		t.Error("this test: got not found, want found in the directory")
	}
}
