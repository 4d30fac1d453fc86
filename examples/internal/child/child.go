// Package child runs the current program again as a child process. A server gets its own
// processor, heap and scheduler, without a second program to build. A child ends with its
// parent.
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

// Main runs serve and exits if this process is a child. Otherwise it returns at once. Call
// it first in main, and in TestMain if tests start children. serve gets the configuration
// given to [Start], and a writer that the parent reads line by line. After serve returns,
// the process stays until its parent closes it.
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
	// Lines reads the output of the child, line by line.
	Lines *bufio.Scanner

	cmd   *exec.Cmd
	stdin io.Closer
}

// Start starts a child with a configuration and a number of processors (GOMAXPROCS). It must
// be possible to encode the configuration as JSON. With 0 processors, Go decides. The child
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

// Stop kills the child and waits until it is gone. A child has nothing to lose, and an
// overloaded one would take long to end by itself. Do not read Lines after Stop. To read
// them to their end, call [Process.Kill] first.
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

// Dismiss closes the standard input of the child, which tells it to end by itself. Lines end
// when it does. A child that has something to clean up reads its standard input to the end.
func (p *Process) Dismiss() { _ = p.stdin.Close() } // it may be closed already

// ExitCode returns the exit code of a child, after Wait. A child that a signal killed has 128
// plus the number of the signal, as in a shell, so 137 for SIGKILL.
func (p *Process) ExitCode() int {
	if code := p.cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return signaled(p.cmd.ProcessState)
}

// Wait waits until a killed child is gone. Do not read Lines after Wait. How the child has
// ended is no error.
func (p *Process) Wait() error {
	err := p.cmd.Wait()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return nil // the context has ended, and the child had just ended by itself
	}
	return err
}
