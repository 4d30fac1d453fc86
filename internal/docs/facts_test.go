package docs_test

import (
	"slices"
	"strings"
	"testing"
)

// A fact is a statement of a page, and places in the code that make it true.
type fact struct {
	says place
	code []place
}

// A place is words of a file.
type place struct{ file, words string }

// placeOf reads "file: words".
func placeOf(line string) (place, bool) {
	file, words, ok := strings.Cut(strings.TrimSpace(line), ": ")
	return place{file, words}, ok && words != ""
}

// factsOf reads the list of facts. wrong has the lines that it cannot read.
func factsOf(text string) (all []fact, wrong []string) {
	for line := range strings.Lines(text) {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		p, ok := placeOf(line)
		switch code := strings.HasPrefix(line, "\t"); {
		case !ok, code && len(all) == 0:
			wrong = append(wrong, line)
		case code:
			all[len(all)-1].code = append(all[len(all)-1].code, p)
		default:
			all = append(all, fact{says: p})
		}
	}
	for _, f := range all {
		if len(f.code) == 0 {
			wrong = append(wrong, f.says.words)
		}
	}
	return all, wrong
}

// flat returns a text without the marks of comments, and with one blank for any white space.
func flat(text string) string {
	words := strings.Fields(text)
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "//" }), " ")
}

// The statements of documents and of the code are there, on both sides.
func TestFacts(t *testing.T) {
	all, wrong := factsOf(string(read(t, "internal/docs/testdata/facts.txt")))
	for _, w := range wrong {
		t.Errorf("facts.txt: got %q, want a statement with the code that makes it true", w)
	}
	if len(all) < 150 {
		t.Errorf("facts: got %d, want at least 150", len(all))
	}
	texts := map[string]string{}
	for _, f := range all {
		for _, p := range append([]place{f.says}, f.code...) {
			if texts[p.file] == "" {
				texts[p.file] = flat(string(read(t, p.file)))
			}
			if !strings.Contains(texts[p.file], flat(p.words)) {
				t.Errorf("%q of %s: got no %q in %s; if one of the two changed, change the other", f.says.words, f.says.file, p.words, p.file)
			}
		}
	}
}

// The check itself.
func TestFactsAreRead(t *testing.T) {
	got, wrong := factsOf("# a\n\nx.md: It is 5.\n\tx.go: five = 5\n\ty.go: 2 + 3\ny.md: It is 6.\nz\n")
	if len(got) != 2 || got[0].says != (place{"x.md", "It is 5."}) || !slices.Equal(got[0].code, []place{{"x.go", "five = 5"}, {"y.go", "2 + 3"}}) {
		t.Errorf("facts: got %+v, want two, and the first with two places", got)
	}
	if want := []string{"z\n", "It is 6."}; !slices.Equal(wrong, want) {
		t.Errorf("wrong lines: got %q, want %q", wrong, want)
	}
	if got, want := flat("// one\n\t// two  three"), "one two three"; got != want {
		t.Errorf("flat: got %q, want %q", got, want)
	}
	if _, wrong := factsOf("\tx.go: five\n"); len(wrong) != 1 {
		t.Errorf("code without a statement: got %q, want one wrong line", wrong)
	}
}
