package archtest_test

import (
	"fmt"
	"go/ast"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// longestLine is the largest number of columns of a line of prose. A tab counts as 4.
const longestLine = 120

// A density bounds the prose of one part of the tree.
type density struct {
	vague  float64 // sentences per 1,000 words that are built on a vague word
	colons float64 // clauses per 1,000 words that are joined with a colon
	long   int     // lines longer than longestLine
}

// anchors is the density of libraries that are easy to read. This check measures no vague
// sentence and no colon in golang.org/x/sync, 0.3 and 0.3 in the balancers of grpc-go 1.85,
// and 0.2 and 2.5 in connect-go 1.18.
var anchors = density{vague: 0.4, colons: 2.7}

// ceilings lists the parts of the tree that are not yet as plain as the anchors. A ceiling
// may only fall: the check also fails if a part is far below its ceiling.
var ceilings = map[string]density{}

// prose is the text of one part of the tree: the comments of its Go and proto files, or
// the paragraphs of a document.
type prose struct {
	words               int
	vague, colons, long []string // places with an excerpt
}

var (
	// vagueWord stands where a noun should, as a subject or an object.
	vagueWord = regexp.MustCompile(`(?i)\b(what|who|whose|whom|whoever|nobody|somebody|that which|those (that|who|which|of))\b|^Those\b`)
	// splice is a colon that joins a clause to another.
	splice = regexp.MustCompile(`[\pL\pN)\]"'_*]: [a-z]`)
	// tag is a word before a colon that readers and tools look for.
	tag = regexp.MustCompile(`^(Note|NOTE|TODO|BUG|Deprecated|Output|See): `)
	// label is the beginning of a list item, such as "gate.go: ".
	label = regexp.MustCompile(`^[-*+0-9.]* *(?:[^ :]*[^ :.*]\** ){0,3}[^ :]+: `)
	// sentenceEnd splits a paragraph.
	sentenceEnd = regexp.MustCompile(`[.!?][)"*]* +`)
	// codeSpan, link and address are parts of prose that are not words.
	codeSpan = regexp.MustCompile("`[^`]*`")
	link     = regexp.MustCompile(`\]\([^)]*\)`)
	address  = regexp.MustCompile(`https?://\S+`)
	// reference is the definition of a link.
	reference = regexp.MustCompile(`^\s*\[[^]]*\]: \S+$`)
	listItem  = regexp.MustCompile(`^\s*(?:[-*+]|\d+\.) `)
	// directive is a comment for a tool.
	directive = regexp.MustCompile(`^//(?:[a-z]+:[a-z]|nolint|export |line )`)
)

// paragraph judges the lines of one paragraph, which begins at a place.
func (p *prose) paragraph(at string, lines []string) {
	text := codeSpan.ReplaceAllString(strings.Join(lines, " "), "code")
	text = address.ReplaceAllString(link.ReplaceAllString(text, "]"), "address")
	text = strings.Join(strings.Fields(text), " ")
	p.words += len(strings.Fields(text))
	if listItem.MatchString(text) {
		text = label.ReplaceAllString(text, "")
	}
	text = strings.TrimLeft(text, "-+*#>\" ")
	for _, s := range splitSentences(text) {
		if found := vagueWord.FindStringIndex(s); found != nil && !strings.HasSuffix(s, "?") {
			p.vague = append(p.vague, at+": "+excerpt(s[max(0, found[0]-20):]))
		}
		s = tag.ReplaceAllString(s, "")
		for _, found := range splice.FindAllStringIndex(s, -1) {
			p.colons = append(p.colons, at+": "+excerpt(s[max(0, found[0]-30):]))
		}
	}
}

func splitSentences(text string) (sentences []string) {
	for {
		end := sentenceEnd.FindStringIndex(text)
		if end == nil {
			return append(sentences, text)
		}
		sentences = append(sentences, strings.TrimSpace(text[:end[1]]))
		text = strings.TrimLeft(text[end[1]:], "*\"(")
	}
}

func excerpt(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "..."
	}
	return s
}

// comment judges the lines of a comment, without the marks of comments. Lines that are
// indented by a tab are code.
func (p *prose) comment(at string, lines []string) {
	var open []string
	flush := func() {
		if len(open) > 0 {
			p.paragraph(at, open)
		}
		open = nil
	}
	for _, line := range lines {
		indented := strings.HasPrefix(line, "    ") && !listItem.MatchString(line) && len(open) == 0
		switch {
		case strings.TrimSpace(line) == "", strings.HasPrefix(line, "\t"), indented, reference.MatchString(line):
			flush()
		case listItem.MatchString(line):
			flush()
			open = []string{line}
		default:
			open = append(open, line)
		}
	}
	flush()
}

// goFile judges the comments of a Go file.
func (p *prose) goFile(in *pkg, f *ast.File, src string) {
	lines := strings.Split(src, "\n")
	for _, group := range f.Comments {
		at := in.fset.Position(group.Pos())
		var text []string
		for _, c := range group.List {
			if directive.MatchString(c.Text) {
				continue
			}
			body := strings.TrimSuffix(strings.TrimPrefix(strings.TrimPrefix(c.Text, "//"), "/*"), "*/")
			text = append(text, strings.Split(strings.TrimPrefix(body, " "), "\n")...)
			line := in.fset.Position(c.Pos()).Line
			if whole := lines[line-1]; strings.HasPrefix(strings.TrimSpace(whole), "//") && !strings.HasPrefix(body, "\t") {
				p.line(fmt.Sprintf("%s:%d", at.Filename, line), whole)
			}
		}
		p.comment(fmt.Sprintf("%s:%d", at.Filename, at.Line), text)
	}
}

// line judges the length of a line of prose.
func (p *prose) line(at, line string) {
	if address.MatchString(line) {
		return
	}
	if n := len([]rune(strings.ReplaceAll(line, "\t", "    "))); n > longestLine {
		p.long = append(p.long, fmt.Sprintf("%s: %d columns", at, n))
	}
}

// protoFile judges the comments of a proto file.
func (p *prose) protoFile(name, src string) {
	var open []string
	start := 0
	lines := strings.Split(src, "\n")
	for i, line := range append(lines, "") {
		before, text, is := strings.Cut(line, "//")
		if is && strings.TrimSpace(before) == "" {
			if open == nil {
				start = i + 1
			}
			p.line(fmt.Sprintf("%s:%d", name, i+1), line)
			open = append(open, strings.TrimPrefix(text, " "))
			continue
		}
		p.comment(fmt.Sprintf("%s:%d", name, start), open)
		open = nil
		if is {
			p.comment(fmt.Sprintf("%s:%d", name, i+1), []string{strings.TrimPrefix(text, " ")})
		}
	}
}

// document judges the paragraphs of a Markdown file, without code and tables.
func (p *prose) document(name, src string) {
	var open []string
	start, fenced := 0, false
	flush := func() {
		if open != nil {
			p.paragraph(fmt.Sprintf("%s:%d", name, start), open)
		}
		open = nil
	}
	for i, line := range strings.Split(src, "\n") {
		trimmed := strings.TrimSpace(line)
		if reference.MatchString(line) {
			continue
		}
		if strings.HasPrefix(trimmed, "```") {
			flush()
			fenced = !fenced
			continue
		}
		indented := strings.HasPrefix(line, "    ") && open == nil
		if fenced || trimmed == "" || indented || strings.HasPrefix(trimmed, "|") || strings.HasPrefix(trimmed, "<") {
			flush()
			continue
		}
		p.line(fmt.Sprintf("%s:%d", name, i+1), line)
		if listItem.MatchString(line) || strings.HasPrefix(line, "#") {
			flush()
		}
		if open == nil {
			start = i + 1
		}
		open = append(open, line)
	}
	flush()
}

// readProse returns the prose of every part of the tree. A part is a directory at the top,
// with all below it, or a document. Tests and generated code are not part of it.
func readProse(t *testing.T, root fs.FS) map[string]*prose {
	t.Helper()
	parts := map[string]*prose{}
	part := func(name string) *prose {
		top, _, _ := strings.Cut(name, "/")
		if parts[top] == nil {
			parts[top] = &prose{}
		}
		return parts[top]
	}
	for _, p := range packagesEverywhere(t, root) {
		for _, name := range slices.Sorted(maps.Keys(p.files)) {
			if !ast.IsGenerated(p.files[name]) {
				part(name).goFile(p, p.files[name], readFile(t, root, name))
			}
		}
	}
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if base := path.Base(name); d.IsDir() && name != "." && (strings.HasPrefix(base, ".") || base == "node_modules") {
			return fs.SkipDir
		}
		switch {
		case path.Ext(name) == ".proto":
			part(name).protoFile(name, readFile(t, root, name))
		case path.Ext(name) == ".md" && name != "CHANGELOG.md" && !strings.HasPrefix(name, "tools/"):
			part(name).document(name, readFile(t, root, name))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("reading the tree: %v", err)
	}
	return parts
}

func readFile(t *testing.T, root fs.FS, name string) string {
	t.Helper()
	data, err := fs.ReadFile(root, name)
	if err != nil {
		t.Fatalf("reading the tree: %v", err)
	}
	return string(data)
}

// checkProse returns the parts of the tree whose prose is above its bound, with the places,
// and those that are far below their ceiling.
func checkProse(t *testing.T, root fs.FS, ceilings map[string]density) (problems []string) {
	t.Helper()
	parts := readProse(t, root)
	for _, name := range slices.Sorted(maps.Keys(parts)) {
		p := parts[name]
		bound, listed := ceilings[name]
		if !listed {
			bound = anchors
		}
		report := func(kind string, found []string, bound, anchor float64) {
			per := 1000 * float64(len(found)) / float64(max(p.words, 1))
			switch {
			case per > bound && len(found) > 1: // one sentence is no habit
				problems = append(problems, fmt.Sprintf("%s: %d %s in %d words, %.1f per 1,000, want at most %.1f:\n\t%s",
					name, len(found), kind, p.words, per, bound, strings.Join(found, "\n\t")))
			case listed && bound > anchor && per < 0.8*bound-0.3:
				problems = append(problems, fmt.Sprintf("%s: %.1f %s per 1,000 words, far below the ceiling of %.1f: lower it",
					name, per, kind, bound))
			}
		}
		report("vague sentences", p.vague, bound.vague, anchors.vague)
		report("colon splices", p.colons, bound.colons, anchors.colons)
		switch n := len(p.long); {
		case n > bound.long:
			problems = append(problems, fmt.Sprintf("%s: %d lines of prose above %d columns, want at most %d:\n\t%s",
				name, n, longestLine, bound.long, strings.Join(p.long, "\n\t")))
		case listed && n < bound.long-bound.long/5:
			problems = append(problems, fmt.Sprintf("%s: %d long lines, far below the ceiling of %d: lower it", name, n, bound.long))
		}
		t.Logf("%-14s %6d words, %5.1f vague sentences and %5.1f colon splices per 1,000, %3d long lines", name, p.words,
			1000*float64(len(p.vague))/float64(max(p.words, 1)), 1000*float64(len(p.colons))/float64(max(p.words, 1)), len(p.long))
	}
	for _, name := range slices.Sorted(maps.Keys(ceilings)) {
		if parts[name] == nil {
			problems = append(problems, name+": has a ceiling for its prose, and does not exist")
		}
	}
	return problems
}

func TestProse(t *testing.T) { report(t, checkProse(t, tree(), ceilings)) }

func TestProseCheck(t *testing.T) {
	const plain = "// Package a is plain. It has two sentences.\npackage a\n"
	for name, c := range map[string]struct {
		file, text string
		want       []string
	}{
		"plain":                 {"a/a.go", plain, nil},
		"one is no habit":       {"a/a.go", plain + "// Whoever waits is served: it is fair.\nvar a int\n", nil},
		"vague subjects":        {"a/a.go", plain + "// What waits, is served. Those that left are not.\nvar a int\n", []string{"a: 2 vague sentences"}},
		"vague objects":         {"a/a.go", plain + "// It takes what it gets. It serves whoever waits.\nvar a int\n", []string{"a: 2 vague sentences"}},
		"those alone":           {"a/a.go", plain + "// It counts those. It counts these.\nvar a int\n", nil},
		"in functions":          {"a/a.go", plain + "func f() {\n\t// Nobody waits.\n\tf() // whose turn it is\n}\n", []string{"a: 2 vague sentences"}},
		"over two lines":        {"a/a.go", plain + "// It serves those\n// that wait, and those\n// who left. Those wait.\nvar a int\n", []string{"a: 2 vague sentences"}},
		"questions":             {"a/a.go", plain + "// Who is served? What is left?\nvar a int\n", nil},
		"colons":                {"a/a.go", plain + "// It waits: there is none. It leaves: it is late.\nvar a int\n", []string{"a: 2 colon splices"}},
		"colon before a list":   {"a/a.go", plain + "// It waits for:\n//\n//   - a: the first\n//   - b.go: the second\nvar a int\n", nil},
		"colon before a name":   {"a/a.go", plain + "// Deprecated: use b.\n//\n// The options: A, B. The others: C.\nvar a int\n", nil},
		"code":                  {"a/a.go", plain + "//\twhat: x, whose: y. Who: a\n//\tcase 1: what()\nvar a int\n", nil},
		"strings are not prose": {"a/a.go", plain + "var a = \"what waits: nobody. who: whose\"\n", nil},
		"directives":            {"a/a.go", plain + "//nolint:what // who is it: nobody\nvar a int\n//go:generate what: who\n", nil},
		"generated":             {"a/a.go", "// Code generated by hand. DO NOT EDIT.\n\n" + plain + "// What is. Who is.\nvar a int\n", nil},
		"tests":                 {"a/a_test.go", plain + "// What is. Who is.\nvar a int\n", nil},
		"a long line":           {"a/a.go", plain + "// " + strings.Repeat("word ", 24) + "\nvar a int\n", []string{"a: 1 lines of prose above 120"}},
		"an address":            {"a/a.go", plain + "// https://example.com/" + strings.Repeat("a", 120) + "\nvar a int\n", nil},
		"below":                 {"a/b/c.go", plain + "// What is. Who is.\nvar a int\n", []string{"a: 2 vague sentences"}},
		"proto":                 {"p/a.proto", "syntax = \"proto3\";\n// What is asked. Whoever asks.\nmessage M {} // nobody asks: it is there\n", []string{"p: 3 vague sentences"}},
		"document":              {"README.md", "# Who\n\nWhat waits: nobody.\n\n* **Name.** Those that wait: some.\n", []string{"README.md: 3 vague", "README.md: 2 colon"}},
		"code in a document":    {"docs/a.md", "Plain.\n\n```\nwhat: who\nwhose: what\n```\n\n| what | who |\n|---|---|\n| nobody: it | whose |\n\nA `what: a` and `who: b`.\n", nil},
		"another document":      {"docs/a/b.md", "What is. Who is.\n", []string{"docs: 2 vague"}},
		"not of the project":    {"tools/a.md", "What is. Who is.\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			wantProblems(t, checkProse(t, synthetic(map[string]string{c.file: c.text}), nil), c.want...)
		})
	}
}

// Modules beside the library, and their pages, are part of the tree.
func TestProseOfModules(t *testing.T) {
	const vague = "// What is. Who is.\n"
	files := map[string]string{
		"a/b/go.mod": "module b\n", "a/b/b.go": vague + "package b\n", "a/b/README.md": "What is. Who is.\n",
		"c/node_modules/d/d.go": vague + "package d\n", "CHANGELOG.md": "What is. Who is.\n",
	}
	wantProblems(t, checkProse(t, synthetic(files), nil), "a: 4 vague")
}

func TestProseCeilings(t *testing.T) {
	text := "package a\n" + strings.Repeat("// It waits for what comes: two words and some more of them are enough here.\nvar a int\n\n", 100)
	for name, c := range map[string]struct {
		ceiling density
		want    []string
	}{
		"at the ceiling":     {density{vague: 70, colons: 70}, nil},
		"above it":           {density{vague: 60, colons: 60}, []string{"a: 100 vague", "a: 100 colon"}},
		"far below it":       {density{vague: 100, colons: 100, long: 1}, []string{"a: 66.7 vague sentences per 1,000 words, far below", "far below", "long lines, far below"}},
		"one of it is plain": {density{vague: 70}, []string{"a: 100 colon"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := checkProse(t, synthetic(map[string]string{"a/a.go": text}), map[string]density{"a": c.ceiling})
			wantProblems(t, got, c.want...)
		})
	}
	t.Run("gone", func(t *testing.T) {
		got := checkProse(t, synthetic(map[string]string{"a/a.go": "package a\n"}), map[string]density{"b": {vague: 1}})
		wantProblems(t, got, "b: has a ceiling")
	})
	t.Run("a part that is plain needs none", func(t *testing.T) {
		got := checkProse(t, synthetic(map[string]string{"a/a.go": "// A is plain.\npackage a\n"}), map[string]density{"a": {vague: 5, colons: 5}})
		wantProblems(t, got, "vague sentences per 1,000 words, far below", "colon splices per 1,000 words, far below")
	})
}
