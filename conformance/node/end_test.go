package node_test

import (
	"bufio"
	"bytes"
	"context"
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

// judgeServer checks the rules that match pattern against the server at addr.
func judgeServer(ctx context.Context, addr, pattern string) string {
	return judge(ctx, "-target", addr, "-run", pattern)
}

// judgeClient checks the rules that match pattern against end.js as a client.
func judgeClient(ctx context.Context, node, pattern, fault string) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err.Error()
	}
	addr := l.Addr().String()
	_ = l.Close() // the program listens there
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer cancel() // without a client, each rule would wait for one
		command := exec.CommandContext(ctx, node, "end.js", "drive", addr, fault)
		command.Env = append(os.Environ(), "no_grpc_proxy=127.0.0.1")
		command.Stderr = os.Stderr
		_ = command.Run() // if it fails, the rules say so, too
	})
	return judge(ctx, "-listen", addr, "-run", pattern)
}

func judge(ctx context.Context, args ...string) string {
	var out bytes.Buffer
	program.Run(ctx, append(args, "-part", "200", "-settle", "20ms"), &out, &out)
	return out.String()
}

// An implementation in another language, written from credit.proto, keeps all rules at both ends.
func TestNodeEndsKeepTheRules(t *testing.T) {
	if racetest.Enabled {
		t.Skip("the race detector sees nothing of JavaScript, and the suite is checked against ends in Go")
	}
	node := installed(t)
	addr := endServer(t, "")
	judge := map[string]func(pattern string) string{
		"server": func(pattern string) string { return judgeServer(t.Context(), addr, pattern) },
		"client": func(pattern string) string { return judgeClient(t.Context(), node, pattern, "") },
	}
	var wg sync.WaitGroup
	for kind, patterns := range judged {
		for _, pattern := range patterns {
			wg.Go(func() {
				output := judge[kind](pattern)
				for _, line := range failed.FindAllStringSubmatch(output, -1) { // again, in case that it was too slow beside the others
					if again := judge[kind]("^" + line[1] + "$"); !passed.MatchString(again) {
						t.Errorf("%s\n%s", line[0], again)
					}
				}
				if !passed.MatchString(output) {
					t.Errorf("%s %s: got no rule that says ok, want most:\n%s", kind, pattern, output)
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
			for kind, output := range map[string]string{
				"server": judgeServer(t.Context(), endServer(t, fault), pattern),
				"client": judgeClient(t.Context(), installed(t), pattern, fault),
			} {
				if !strings.Contains(output, "FAIL "+kind+"/"+pattern) {
					t.Errorf("got %q for a %s that %s, want that rule %s fails", output, kind, fault, rule)
				}
			}
		})
	}
}
