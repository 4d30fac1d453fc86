package node_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/weir-go/weir/conformance/internal/program"
	"github.com/weir-go/weir/internal/racetest"
)

// judged are the rules for each end. A rule mostly waits, so they are checked in parts that run at the same
// time. The form of the messages matters to few rules, so each end has all rules in one form only.
var judged = map[string][]string{
	"server": {`embedded/\d[0-2]_`, `embedded/\d[3-5]_`, `embedded/\d[6-9]_`, `frames/\d[34]_`},
	"client": {`frames/\d[0-2]_`, `frames/\d[3-5]_`, `frames/\d[6-9]_`, `embedded/\d[34]_`},
}

// passed and failed match the line of a rule.
var (
	passed = regexp.MustCompile(`(?m)^ok {3}\S+$`)
	failed = regexp.MustCompile(`(?m)^FAIL (\S+):.*$`)
)

// endServer runs end.js as a server and returns its address.
func endServer(t *testing.T, fault string) (addr string) {
	t.Helper()
	command := exec.Command(installed(t), "end.js", "serve", fault)
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe() // its end ends the server
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = stdin.Close(), command.Wait() })
	port, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatalf("the port of end.js: got %v, want a line", err)
	}
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(port))
}

// A judge checks the rules that match pattern. It returns the exit code and the output of the program.
type judge func(pattern string) (code int, output string)

// judgeServer judges the server at addr.
func judgeServer(ctx context.Context, addr string) judge {
	return func(pattern string) (code int, output string) {
		var out bytes.Buffer
		code = check(ctx, &out, "-target", addr, "-run", pattern)
		return code, out.String()
	}
}

// judgeClient judges end.js as a client.
func judgeClient(ctx context.Context, node, fault string) judge {
	return func(pattern string) (code int, output string) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		read, write := io.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			code = check(ctx, write, "-listen", "127.0.0.1:0", "-run", pattern)
			_ = write.Close()
		})
		var out bytes.Buffer
		lines := bufio.NewReader(io.TeeReader(read, &out))
		if first, err := lines.ReadString('\n'); err == nil {
			wg.Go(func() {
				_, addr, _ := strings.Cut(strings.TrimSpace(first), "listening at ")
				command := exec.CommandContext(ctx, node, "end.js", "drive", addr, fault)
				command.Env = append(os.Environ(), "no_grpc_proxy=127.0.0.1")
				command.Stderr = os.Stderr
				if err := command.Run(); err != nil {
					cancel() // without a client, each rule would wait for one
				}
			})
		}
		_, _ = io.Copy(io.Discard, lines)
		wg.Wait()
		return code, out.String()
	}
}

// check runs the program with args until it ends.
func check(ctx context.Context, out io.Writer, args ...string) (code int) {
	return program.Run(ctx, append(args, "-part", "200", "-settle", "20ms"), out, out)
}

// An implementation in another language, written from credit.proto, keeps all rules at both ends.
func TestNodeEndsKeepTheRules(t *testing.T) {
	if racetest.Enabled {
		t.Skip("the race detector sees nothing of JavaScript, and the suite is checked against ends in Go")
	}
	node := installed(t)
	judges := map[string]judge{
		"server": judgeServer(t.Context(), endServer(t, "")),
		"client": judgeClient(t.Context(), node, ""),
	}
	var wg sync.WaitGroup
	for kind, patterns := range judged {
		for _, pattern := range patterns {
			wg.Go(func() {
				judge := judges[kind]
				code, output := judge(pattern)
				if code == program.ExitUsage { // again, in case that the end could not start
					code, output = judge(pattern)
				}
				if code == program.ExitUsage || !passed.MatchString(output) {
					t.Errorf("%s %s: got exit code %d, want that most rules say ok:\n%s", kind, pattern, code, output)
				}
				for _, line := range failed.FindAllStringSubmatch(output, -1) { // again, in case that it was too slow beside the others
					if _, again := judge("^" + line[1] + "$"); !passed.MatchString(again) {
						t.Errorf("%s\n%s", line[0], again)
					}
				}
			})
		}
	}
	wg.Wait()
}

// The rules find an implementation in another language that is wrong.
func TestRulesNoticeANodeEndThatIsWrong(t *testing.T) {
	for fault, rule := range map[string]string{
		"ignores credit": "02", "miscounts": "04", "trusts totals": "39",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			pattern := "embedded/" + rule + "_"
			for kind, judge := range map[string]judge{
				"server": judgeServer(t.Context(), endServer(t, fault)),
				"client": judgeClient(t.Context(), installed(t), fault),
			} {
				if _, output := judge(pattern); !strings.Contains(output, "FAIL "+kind+"/"+pattern) {
					t.Errorf("got %q for a %s that %s, want that rule %s fails", output, kind, fault, rule)
				}
			}
		})
	}
}
