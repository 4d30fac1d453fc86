// Package servertest starts the servers of brokers for the tests of adapters.
package servertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Require skips the test if err is not nil, because a program that it needs is not installed.
// With WEIR_BROKERS=required the test fails instead. The error text names the program, as in
// "redis-server (Debian's package redis-server)".
func Require(t testing.TB, program string, err error) {
	t.Helper()
	switch {
	case err == nil:
	case os.Getenv("WEIR_BROKERS") == "required":
		t.Fatalf("WEIR_BROKERS=required, and there is no %s: %v", program, err)
	default:
		t.Skipf("NOT TESTED: there is no %s: %v", program, err)
	}
}

// FreeAddr returns an address of loopback that is free for the moment.
func FreeAddr(t testing.TB) string {
	t.Helper()
	var config net.ListenConfig
	l, err := config.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A Process is a server that a test starts, kills and starts again.
type Process struct {
	// Command returns the command, which runs until it is killed.
	Command func() *exec.Cmd
	// Ready returns nil once the server answers.
	Ready func(context.Context) error

	cmd *exec.Cmd
}

// startTime bounds a start on a busy machine.
const startTime = 30 * time.Second

// Restart starts the server and waits until it is ready. It must not run.
func (p *Process) Restart() error {
	cmd := p.Command()
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd = cmd
	ctx, cancel := context.WithTimeout(context.Background(), startTime)
	defer cancel()
	for {
		err := p.Ready(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return errors.Join(fmt.Errorf("%s does not answer: %w", cmd.Path, err), p.Stop())
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Stop kills the server, if it runs.
func (p *Process) Stop() error {
	if p.cmd == nil {
		return nil
	}
	err := p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	p.cmd = nil
	return err
}
