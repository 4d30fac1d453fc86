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

// link finds the target of a Markdown link, fenced a block of code.
var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fenced  = regexp.MustCompile("(?s)\n```.*?\n```\n")
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	// unspoken is left out of an anchor.
	unspoken = regexp.MustCompile(`[^\pL\pN _-]`)
)

// anchors returns the anchors of a page, as the forges make them of headings.
func anchors(text string) (all []string) {
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, "\n"), -1) {
		all = append(all, strings.ReplaceAll(unspoken.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-"))
	}
	return all
}

// deadLinks returns the links of a page to files of the tree, or to headings, that are not there. read
// returns the content of a file or directory, and whether it is there.
func deadLinks(name, text string, read func(name string) (string, bool)) (dead []string, links int) {
	for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, "\n"), -1) {
		file, anchor, _ := strings.Cut(m[1], "#")
		if strings.Contains(m[1], "://") {
			continue
		}
		links++
		content, ok := text, true
		if file != "" {
			content, ok = read(path.Join(path.Dir(name), file))
		}
		if !ok || anchor != "" && !slices.Contains(anchors(content), anchor) {
			dead = append(dead, m[1])
		}
	}
	return dead, links
}

// Links to files of the tree, and to their headings, lead somewhere.
func TestLinks(t *testing.T) {
	links := 0
	for _, name := range pages(t) {
		dead, n := deadLinks(name, string(read(t, name)), func(to string) (string, bool) {
			at := filepath.Join(root, filepath.FromSlash(to))
			if info, err := os.Stat(at); err != nil || info.IsDir() {
				return "", err == nil
			}
			return string(read(t, to)), true
		})
		links += n
		for _, to := range dead {
			t.Errorf("%s: got a link to %s, which is not there", name, to)
		}
	}
	if links < 50 {
		t.Errorf("links: got %d, want those of the documents", links)
	}
}

// The check itself.
func TestDeadLinksAreFound(t *testing.T) {
	text := "# The first one, `b`: c-d\n[a](#the-first-one-b-c-d) [b](#none)\n\n```\n# no heading\n[c](none)\n```\n\n" +
		"[d](e.md) [e](e.md#there) [f](e.md#away) [g](f.md) [h](https://example.com/x#y) [i](#no-heading)\n"
	got, links := deadLinks("docs/x.md", text, func(name string) (string, bool) { return "## There", name == "docs/e.md" })
	if want := []string{"#none", "e.md#away", "f.md", "#no-heading"}; !slices.Equal(got, want) || links != 7 {
		t.Errorf("dead links: got %q of %d, want %q of 7", got, links, want)
	}
}
