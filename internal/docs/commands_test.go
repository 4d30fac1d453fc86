package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pages returns the paths of every Markdown page that has commands, from the root.
func pages(t *testing.T) []string {
	t.Helper()
	names := documents(t)
	for _, pattern := range []string{"ops/runbook/*.md", "broker/*/README.md", "proto/model/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: got %v, %v, want pages", pattern, found, err)
		}
		for _, f := range found {
			rel, err := filepath.Rel(root, f)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, filepath.ToSlash(rel))
		}
	}
	return names
}

var (
	codeLine = regexp.MustCompile("(?m)^ {4}(.*)$|^(curl .*)$|`([^`\n]+)`")
	remark   = regexp.MustCompile(`\s{2,}#.*$`)
	goWord   = regexp.MustCompile(`(?:^|\s)go (run|test|vet|build) (.*)$`)
	makeWord = regexp.MustCompile(`^make( [a-z-]+)?(?: |$)`)
	testFunc = regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz|Example)\w*)\(`)
	target   = regexp.MustCompile(`(?m)^([a-z-]+):.*## `)
)

// commandsOf returns the commands of a page, without their remarks.
func commandsOf(text string) (all []string) {
	for _, m := range codeLine.FindAllStringSubmatch(text, -1) {
		all = append(all, remark.ReplaceAllString(strings.TrimSpace(m[1]+m[2]+m[3]), ""))
	}
	return all
}

// checkGo returns the faults of a command of go, run in the directory in.
func checkGo(in, command string) (faults []string) {
	if rest, ok := strings.CutPrefix(command, "cd "); ok {
		dir, then, _ := strings.Cut(rest, " && ")
		in, command = filepath.Join(root, dir), then
	}
	m := goWord.FindStringSubmatch(command)
	if m == nil {
		return nil
	}
	words := fields(m[2])
	var dirs []string
	for _, w := range words {
		if w != "." && !strings.HasPrefix(w, "./") {
			continue
		}
		dirs = append(dirs, filepath.Join(in, strings.TrimSuffix(w, "...")))
		if _, err := os.Stat(dirs[len(dirs)-1]); err != nil {
			faults = append(faults, "got "+w+", want a directory of the tree")
		}
		if m[1] == "run" { // what follows is for the program
			break
		}
	}
	if len(dirs) == 0 || len(faults) > 0 {
		return faults
	}
	for i, w := range words {
		name, value, ok := strings.Cut(strings.TrimLeft(w, "-"), "=")
		if !ok && i+1 < len(words) {
			value = words[i+1]
		}
		if m[1] != "test" || name != "run" && name != "bench" || slices.Contains([]string{"^$", "NONE", "-", "."}, value) {
			continue
		}
		if value == "" || !matches(dirs, strings.Split(value, "/")[0], name == "bench") {
			faults = append(faults, "got -"+name+" "+value+", want the name of a test")
		}
	}
	return faults
}

// fields splits a command as a shell does, with single quotes.
func fields(s string) (words []string) {
	for i, part := range strings.Split(s, "'") {
		switch inner := i%2 == 1; {
		case inner && len(words) > 0 && !strings.HasSuffix(strings.Split(s, "'")[i-1], " "):
			words[len(words)-1] += part
		case inner:
			words = append(words, part)
		default:
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// matches reports whether a test, or a benchmark, of one of the directories matches a pattern.
func matches(dirs []string, pattern string, bench bool) bool {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return false
	}
	for _, dir := range dirs {
		files, _ := filepath.Glob(filepath.Join(dir, "*_test.go"))
		for _, f := range files {
			raw, _ := os.ReadFile(f)
			for _, m := range testFunc.FindAllSubmatch(raw, -1) {
				if name := string(m[1]); re.MatchString(name) && strings.HasPrefix(name, "Benchmark") == bench {
					return true
				}
			}
		}
	}
	return false
}

// Commands in documents name programs, tests and targets that are there, and can be pasted.
func TestCommands(t *testing.T) {
	makefile := read(t, "Makefile")
	var targets []string
	for _, m := range target.FindAllSubmatch(makefile, -1) {
		targets = append(targets, string(m[1]))
	}
	commands := 0
	for _, name := range pages(t) {
		raw := read(t, name)
		in := root
		if strings.HasPrefix(name, "broker/") {
			in = filepath.Join(root, filepath.Dir(name))
		}
		for _, c := range commandsOf(string(raw)) {
			faults := checkGo(in, c)
			if m := makeWord.FindStringSubmatch(c); m != nil {
				if to := strings.TrimSpace(m[1]); to != "" && !slices.Contains(targets, to) {
					faults = append(faults, "got make "+to+", want a target of the Makefile")
				}
				commands++
			}
			if strings.HasPrefix(c, "curl ") && regexp.MustCompile(`\s[^'"\s]*[?&][^'"\s]*`).MatchString(c) {
				faults = append(faults, "got an address with ? or & without quotes, want it in quotes, since shells expand it")
			}
			if goWord.MatchString(c) {
				commands++
			}
			for _, f := range faults {
				t.Errorf("%s: %s: %s", name, c, f)
			}
		}
	}
	if commands < 40 {
		t.Errorf("commands: got %d, want those of the documents", commands)
	}
}

// The check itself.
func TestCommandsAreRead(t *testing.T) {
	text := "a `go run ./x` b\n\n    make test    # all\n    go test -run='^(A|B)$' ./y  # c\ncurl -s $M | grep x\n"
	got := commandsOf(text)
	if want := []string{"go run ./x", "make test", "go test -run='^(A|B)$' ./y", "curl -s $M | grep x"}; !slices.Equal(got, want) {
		t.Errorf("commands: got %q, want %q", got, want)
	}
	for command, want := range map[string]int{
		"go run ./examples/overload -seed 1":                       0,
		"go run ./examples/nothing":                                1,
		"go test -v -run=TestCommandsAreRead ./internal/docs":      0,
		"go test -run TestCommandsAreNot ./internal/docs":          1,
		"go test -run='^$' -bench=CommandsAreRead ./internal/docs": 1,
		"cd ops && go run ./dashboard":                             0,
		"cd internal && go run ./dashboard":                        1,
		"a go vet that sees copies":                                0,
	} {
		if faults := checkGo(root, command); len(faults) != want {
			t.Errorf("%s: got %q, want %d faults", command, faults, want)
		}
	}
}
