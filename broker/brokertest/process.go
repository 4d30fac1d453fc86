package brokertest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/weir-go/weir/broker"
)

// environment is the variable that tells the test binary to be a consumer.
const environment = "WEIR_BROKERTEST_CONSUMER"

// said begins each line that a consumer prints for the suite.
const said = "brokertest: "

// An order is the task of a consumer in another process.
type order struct {
	Consumer Consumer `json:"consumer"`
	Demand   int      `json:"demand"`
	Acks     int      `json:"acks"` // acknowledges that many, and holds all others
	Workers  int      `json:"workers"`
}

// consumeIfTold consumes until the process is killed, if the process was started for that.
func consumeIfTold(t testing.TB, b Broker) {
	t.Helper()
	text := os.Getenv(environment)
	if text == "" {
		return
	}
	go func() { // the process must not outlive the suite
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	var o order
	err := json.Unmarshal([]byte(text), &o)
	if err == nil {
		err = o.consume(b)
	}
	report("error %v", err)
	os.Exit(1)
}

func report(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stdout, "\n"+said+format+"\n", args...)
}

func (o order) consume(b Broker) error {
	ctx := context.Background()
	source, err := b.Open(ctx, o.Consumer)
	if err != nil {
		return err
	}
	source.Request(o.Demand)
	for range o.Workers {
		go func() { report("error %v", work(ctx, source)) }()
	}
	if o.Workers > 0 {
		select {}
	}
	for i := 0; ; i++ {
		m, err := source.Next(ctx)
		if err != nil {
			return err
		}
		if i >= o.Acks {
			report("held %s", m.Body)
			continue
		}
		source.Request(1)
		if err := m.Ack(ctx); err != nil {
			return err
		}
		report("acked %s", m.Body)
	}
}

// work consumes until an error.
func work(ctx context.Context, source broker.Source) error {
	for {
		m, err := source.Next(ctx)
		if err != nil {
			return err
		}
		pause(ctx, brief)
		report("consumed %s", m.Body)
		source.Request(1)
		if err := m.Ack(ctx); err != nil && !errors.Is(err, broker.ErrSettled) {
			return err
		}
	}
}

// A process is a consumer in another process.
type process struct {
	cmd   *exec.Cmd
	lines chan string // closed when the process has ended
}

// start runs the test binary as a consumer.
func (tr *trial) start(o order) *process {
	text, err := json.Marshal(o)
	tr.must("write the order", err)
	program, err := os.Executable()
	tr.must("find the test binary", err)
	args := []string{"-test.run=" + exactly(tr.t.Name()), "-test.count=1"}
	cmd := exec.Command(program, args...) //nolint:gosec,noctx // it runs itself, until it is killed
	cmd.Env = append(os.Environ(), environment+"="+string(text))
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	tr.must("connect with the consumer", err)
	stdout, err := cmd.StdoutPipe()
	tr.must("connect with the consumer", err)
	tr.must("start a consumer", cmd.Start())
	p := &process{cmd: cmd, lines: make(chan string, 1000)}
	go func() {
		defer close(p.lines)
		defer stdin.Close()
		for s := bufio.NewScanner(stdout); s.Scan(); {
			if line, ok := strings.CutPrefix(s.Text(), said); ok {
				p.lines <- line
			}
		}
	}()
	tr.t.Cleanup(func() { p.kill() })
	return p
}

// exactly returns the pattern of go test for one test.
func exactly(name string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = "^" + regexp.QuoteMeta(part) + "$"
	}
	return strings.Join(parts, "/")
}

// kill ends the process as kill -9 does. It returns the lines that were not read.
func (p *process) kill() (rest []string) {
	_ = p.cmd.Process.Kill()
	for line := range p.lines { // until the reader of its output has ended
		rest = append(rest, line)
	}
	_ = p.cmd.Wait()
	return rest
}

// checkKill kills a consumer that has acknowledged some messages and holds others.
func checkKill(tr *trial) {
	const n, demand, acks = 40, 8, 12
	tr.publish(n)
	p := tr.start(order{Consumer: tr.consumer("worker-1"), Demand: demand, Acks: acks})
	held := tr.hear(p, acks, demand)
	var s Counts
	few := func() bool { s = tr.counts(); return s.Unacked <= demand+tr.b.Slack }
	// Acknowledgements that a source bundles may still be on their way.
	if !tr.await(tr.b.Patience, few) || s.Unacked < demand {
		tr.errorf("the broker counts %+v while the consumer holds %d messages, want these unacknowledged", s, demand)
	}
	p.kill()
	other := tr.open("worker-2")
	other.work(demand, func(m *broker.Message) {
		tr.mu.Lock()
		defer tr.mu.Unlock()
		delete(held, string(m.Body))
	})
	tr.allConsumed()
	tr.empty()
	tr.mu.Lock()
	defer tr.mu.Unlock()
	for body := range held {
		tr.failures = append(tr.failures, fmt.Errorf("message %q was held by the killed consumer and did not come again", body))
	}
}

// checkKillSettling kills three consumers in turn, each while all of its workers consume and
// acknowledge. A message may come twice.
func checkKillSettling(tr *trial) {
	const each, demand, victims = 200, 8, 3
	for i := range victims {
		tr.publish(each)
		p := tr.start(order{Consumer: tr.consumer(fmt.Sprintf("victim-%d", i)), Demand: demand, Workers: demand})
		for range each / 4 {
			tr.hearConsumed(p)
		}
		for _, line := range p.kill() {
			if body, ok := strings.CutPrefix(line, "consumed "); ok {
				tr.noteConsumed([]byte(body))
			}
		}
	}
	other := tr.open("worker")
	other.work(demand, func(*broker.Message) {})
	tr.allConsumed()
	tr.empty()
}

// hearConsumed waits until the consumer has consumed one more message.
func (tr *trial) hearConsumed(p *process) {
	select {
	case line, ok := <-p.lines:
		body, consumed := strings.CutPrefix(line, "consumed ")
		if !ok || !consumed {
			tr.fatalf("the consumer has failed or ended: %s", line)
		}
		tr.noteConsumed([]byte(body))
	case <-time.After(2 * tr.b.Patience):
		tr.fatalf("the consumer has consumed nothing for %v; the broker counts %+v", 2*tr.b.Patience, tr.counts())
	}
}

// hear waits until the consumer has acknowledged and holds as many messages as wanted. It
// returns the bodies of the held ones.
func (tr *trial) hear(p *process, acks, holds int) map[string]bool {
	held := map[string]bool{}
	for n := 0; n < acks || len(held) < holds; {
		select {
		case line, ok := <-p.lines:
			what, body, _ := strings.Cut(line, " ")
			switch {
			case !ok:
				tr.fatalf("the consumer has ended by itself")
			case what == "acked":
				tr.noteConsumed([]byte(body))
				n++
			case what == "held":
				held[body] = true
			default:
				tr.fatalf("the consumer has failed: %s", body)
			}
		case <-tr.ctx.Done():
			tr.fatalf("the consumer has acknowledged %d and holds %d messages, want %d and %d", n, len(held), acks, holds)
		}
	}
	return held
}
