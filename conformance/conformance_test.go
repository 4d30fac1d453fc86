package main_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/conformance/internal/program"
	"github.com/weir-go/weir/conformance/internal/rules"
	"github.com/weir-go/weir/internal/racetest"
)

// part is how much less often than the program the tests do what rules do many times.
func part() int {
	if racetest.Enabled || testing.Short() {
		return 200
	}
	return 20
}

// Each rule has a bubble of its own, with a connection of its own: time is exact, and a goroutine
// that is left over fails it.
func TestRules(t *testing.T) {
	for _, end := range allEnds {
		t.Run(end.name, func(t *testing.T) {
			for _, rule := range rules.All() {
				t.Run(rule.Title(), func(t *testing.T) {
					var result rules.Result
					synctest.Test(t, func(t *testing.T) {
						c := rules.Config{Settle: time.Second, Exact: true, Part: part()}
						if result = rules.Check(t.Context(), rule, end.start(t), c); result.Err != nil {
							t.Errorf("%s\n%v", rule.Proves, result.Err)
						}
					})
					if result.Skipped != "" {
						t.Skip(result.Skipped)
					}
				})
			}
		})
	}
}

// The program does the same over sockets, on one connection for all servers' rules and one for
// the clients'.
func TestProgram(t *testing.T) {
	var out, stderr bytes.Buffer
	if code := program.Run(t.Context(), []string{"-settle", "10ms", "-part", strconv.Itoa(part())}, &out, &stderr); code != program.ExitOK {
		t.Errorf("the program exits with %d, want %d; it says %s and:\n%s", code, program.ExitOK, &stderr, bad(out.String()))
	}
	notApplicable := 0
	for _, end := range allEnds {
		for _, rule := range rules.All() {
			line := regexp.MustCompile(`(?m)^(ok  |n/a ) ` + end.name + "/" + regexp.QuoteMeta(rule.Title()) + `(:|$)`).FindString(out.String())
			if line == "" {
				t.Errorf("got no line that says ok for %s/%s, want one", end.name, rule.Title())
			}
			if strings.HasPrefix(line, "n/a") {
				notApplicable++
			}
		}
	}
	if notApplicable != 14 { // two rules for batches, for two ends without frames, and five for servers or clients, for two ends each
		t.Errorf("got %d rules that are not applicable, want 14", notApplicable)
	}
}

// bad returns the lines that do not say ok.
func bad(out string) string {
	lines := slices.DeleteFunc(strings.Split(out, "\n"), func(l string) bool { return strings.HasPrefix(l, "ok") })
	return strings.Join(lines, "\n")
}

// The numbers are those of the protocol's conformance section, and from 72 on those of faults. Of those that are missing 32 is a test of its own here, 67 and
// 68 are tests of streamcredit, 38 is one with 37, and 71 is in another language.
func TestAllRulesAreThere(t *testing.T) {
	missing := []int{32, 38, 67, 68, 71}
	var numbers []int
	for _, r := range rules.All() {
		if numbers = append(numbers, r.Number); r.Name == "" || r.Proves == "" || r.Run == nil {
			t.Errorf("got rule %d with a name %q, proves %q; want all of them", r.Number, r.Name, r.Proves)
		}
	}
	var want []int
	for n := 1; n <= 85; n++ {
		if !slices.Contains(missing, n) {
			want = append(want, n)
		}
	}
	if !slices.Equal(numbers, want) {
		t.Errorf("got rules %v, want %v", numbers, want)
	}
}

func TestProgramSaysWhatIsWrongWithItsArguments(t *testing.T) {
	for _, args := range [][]string{{"-run", "("}, {"-target"}, {"-listen", "no address"}, {"-nonsense"}} {
		var out, stderr bytes.Buffer
		if code := program.Run(t.Context(), args, &out, &stderr); code != program.ExitUsage || stderr.Len() == 0 {
			t.Errorf("the program with %q exits with %d and says %q, want %d and something", args, code, &stderr, program.ExitUsage)
		}
	}
}

// start starts the program with args and returns the address that its first line names. wait ends it and returns
// its exit code and the rest of its output.
func start(t *testing.T, args ...string) (addr string, wait func() (code int, output string)) {
	t.Helper()
	read, write := io.Pipe()
	code := make(chan int, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer write.Close()
		code <- program.Run(ctx, args, write, write)
	}()
	lines := bufio.NewReader(read)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening at ")
	if !ok {
		t.Fatalf("the first line of the program with %q: got %q, want its address", args, line)
	}
	rest := make(chan string, 1)
	go func() {
		output, _ := io.ReadAll(lines) // ends with the program
		rest <- string(output)
	}()
	return addr, func() (int, string) {
		defer cancel()
		if slices.Contains(args, "-serve") {
			cancel()
		}
		return <-code, <-rest
	}
}

// A caller that lets the system choose the port reads it from the first line.
func TestProgramSaysWhereItListens(t *testing.T) {
	const pattern = "embedded/01_"
	suite, wait := start(t, "-listen", "127.0.0.1:0", "-settle", "10ms", "-run", pattern)
	var out bytes.Buffer
	if code := program.Run(t.Context(), []string{"-connect", suite}, &out, &out); code != program.ExitOK {
		t.Errorf("the client end exits with %d, want %d; it says %s", code, program.ExitOK, &out)
	}
	if code, output := wait(); code != program.ExitOK || !strings.HasPrefix(output, "ok   client/"+pattern) {
		t.Errorf("the suite exits with %d, want %d; it says %q", code, program.ExitOK, output)
	}

	server, wait := start(t, "-serve", "127.0.0.1:0")
	out.Reset()
	if code := program.Run(t.Context(), []string{"-target", server, "-settle", "10ms", "-run", pattern}, &out, &out); code != program.ExitOK ||
		!strings.HasPrefix(out.String(), "ok   server/"+pattern) {
		t.Errorf("the suite exits with %d, want %d; it says %q", code, program.ExitOK, &out)
	}
	if code, output := wait(); code != program.ExitOK || output != "" {
		t.Errorf("the server end exits with %d, want %d; it says %q", code, program.ExitOK, output)
	}
}

func TestProgramExplains(t *testing.T) {
	var out bytes.Buffer
	if code := program.Run(t.Context(), []string{"-explain"}, &out, &out); code != program.ExitOK {
		t.Errorf("the program exits with %d, want %d", code, program.ExitOK)
	}
	for _, r := range rules.All() {
		if !strings.Contains(out.String(), r.Proves) {
			t.Errorf("got %q, want it to say what rule %d proves", &out, r.Number)
		}
	}
}
