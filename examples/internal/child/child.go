// Package child runs the program that is running once more, as a process of its
// own: a server with its own processor, heap and scheduler, and no second program
// to build. A child ends when its parent does.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
)

// variable holds the child's configuration in its environment, as JSON.
const variable = "WEIR_EXAMPLE_CHILD"

// Main runs serve and exits if this process is a child. Otherwise it returns at
// once. Call it first in main, and in TestMain where tests start children. serve
// gets the configuration given to [Start], and out, which the parent reads line
// by line. When serve returns, the process stays until its parent closes it.
func Main[C any](serve func(config C, out io.Writer) error) {
	data, is := os.LookupEnv(variable)
	if !is {
		return
	}
	var config C
	err := json.Unmarshal([]byte(data), &config)
	if err == nil {
		err = serve(config, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	// The parent never writes. Standard input ends when the parent closes it or is gone.
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// A Process is a running child.
type Process struct {
	// PID is its process id.
	PID int
	// Lines reads what the child prints, one line each.
	Lines *bufio.Scanner

	cmd   *exec.Cmd
	stdin io.Closer
}

// Start starts a child with a configuration, which must be possible to encode as
// JSON, and so many processors (GOMAXPROCS); 0 leaves that to Go. The child
// inherits the affinity of the calling thread and is killed when ctx ends.
func Start(ctx context.Context, config any, procs int) (*Process, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Stderr = os.Stderr
	cmd.Env = append(os.Environ(), variable+"="+string(data))
	if procs > 0 {
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+strconv.Itoa(procs))
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &Process{PID: cmd.Process.Pid, Lines: bufio.NewScanner(stdout), cmd: cmd, stdin: stdin}, nil
}

// Stop kills the child and waits until it is gone. A child has nothing to lose,
// and an overloaded one would take long to end by itself. Read Lines to their end
// first, or not at all any more: see [Process.Kill].
func (p *Process) Stop() error {
	return errors.Join(p.Kill(), p.Wait())
}

// Kill kills the child. Lines then end.
func (p *Process) Kill() error {
	_ = p.stdin.Close() // its read end may be gone
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// ExitCode returns how a child has ended, after Wait: as a shell has it, 128 and the
// number of the signal that killed it, so 137 for SIGKILL.
func (p *Process) ExitCode() int {
	if code := p.cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return signaled(p.cmd.ProcessState)
}

// Wait waits until a child that was killed is gone. Nobody may read Lines any more.
func (p *Process) Wait() error {
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) { // killed: as intended
		return err
	}
	return nil
}
