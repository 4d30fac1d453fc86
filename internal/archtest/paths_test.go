package archtest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"regexp"
	"slices"
	"testing"
)

// machinePath finds paths that mean something on one machine only: directories
// where a person or a builder keeps a copy of the tree. What follows a word, a
// dot or a slash is a part of something else, such as a URL. (The groups keep this source
// from being what it looks for.)
var machinePath = regexp.MustCompile(`(?:^|[^\w./-])(/(?:work|root|home|Users)/|/tmp/(?:bash|go-build))`)

// checkPaths returns the files of root that contain machine paths, unless
// ignored says that the file is none of the project's.
func checkPaths(t *testing.T, root fs.FS, ignored func(name string) bool) (problems []string, files int) {
	t.Helper()
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name == ".git" {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() || name == ".git" { // .git is a file in a linked work tree
			return nil
		}
		data, err := fs.ReadFile(root, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a temporary file of somebody who works in the tree
		}
		if err != nil {
			return err
		}
		files++
		found := machinePath.FindSubmatchIndex(data)
		if found == nil || bytes.IndexByte(data, 0) >= 0 || ignored(name) {
			return nil
		}
		line := 1 + bytes.Count(data[:found[2]], []byte("\n"))
		problems = append(problems, fmt.Sprintf("%s:%d: contains the path of a machine: %s", name, line, data[found[2]:found[3]]))
		return nil
	})
	if err != nil {
		t.Fatalf("reading the tree: %v", err)
	}
	return problems, files
}

// ignoredByGit reports whether git ignores the file. Where there is no git, or
// no repository, nothing is ignored.
func ignoredByGit(ctx context.Context) func(name string) bool {
	return func(name string) bool {
		cmd := exec.CommandContext(ctx, "git", "check-ignore", "--quiet", "--", name)
		cmd.Dir = "../.."
		return cmd.Run() == nil
	}
}

func TestNoMachinePaths(t *testing.T) {
	problems, files := checkPaths(t, tree(), ignoredByGit(t.Context()))
	report(t, problems)
	if files == 0 {
		t.Error("files read = 0, want the whole tree")
	}
}

func TestNoMachinePathsCheck(t *testing.T) {
	slash := "/" // keeps the paths out of this source
	for name, c := range map[string]struct {
		file, content string
		want          []string
	}{
		"at the start":      {"README.md", slash + "work/main is mine", []string{"README.md:1: "}},
		"in a sentence":     {"a/b/x.go", "line\n// see " + slash + "home/ann/x for it", []string{"a/b/x.go:2: "}},
		"in quotes":         {"Makefile", `x := "` + slash + `root/go"`, []string{"Makefile:1: "}},
		"after an equals":   {"ci", "HOME=" + slash + "Users/ann", []string{"ci:1: "}},
		"a temporary one":   {".ci/run", "cat " + slash + "tmp/bash_jobs/x", []string{".ci/run:1: "}},
		"of a build":        {"log.txt", "(" + slash + "tmp/go-build123/b001)", []string{"log.txt:1: "}},
		"once for a file":   {"x", slash + "work/a " + slash + "work/b", []string{"x:1: "}},
		"a URL":             {"x", "https:/" + slash + "example.com" + slash + "work/a", nil},
		"a relative path":   {"x", "./home/x and a" + slash + "root/x", nil},
		"a method's name":   {"x", slash + "weir.demo.v1.DemoService/Work", nil},
		"the name alone":    {"x", "cd " + slash + "work" + slash + "\n", []string{"x:1: "}},
		"a longer name":     {"x", slash + "workshop/a " + slash + "work", nil},
		"a binary file":     {"x", "\x00 " + slash + "work/main", nil},
		"git's own":         {".git/config", slash + "work/main", nil},
		"an ignored file":   {"out/x", slash + "work/main", nil},
		"testdata included": {"a/testdata/x", " " + slash + "work/main", []string{"a/testdata/x:1: "}},
	} {
		t.Run(name, func(t *testing.T) {
			ignored := func(name string) bool { return name == "out/x" }
			got, _ := checkPaths(t, synthetic(map[string]string{c.file: c.content}), ignored)
			wantProblems(t, got, c.want...)
		})
	}
}

// git's word is asked only where a path was found, so this asks it about files
// whose answers are known.
func TestIgnoredByGit(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "git", "rev-parse", "--is-inside-work-tree")
	if err := cmd.Run(); err != nil {
		t.Skipf("not in a git repository, so git ignores nothing here: %v", err)
	}
	got := []bool{ignoredByGit(t.Context())("out/cover.html"), ignoredByGit(t.Context())("go.mod")}
	if want := []bool{true, false}; !slices.Equal(got, want) {
		t.Errorf("git ignores out/cover.html and go.mod = %v, want %v", got, want)
	}
}
