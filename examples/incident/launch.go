package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// A launched is a running program with a directory of its own.
type launched struct {
	dir   string
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd and all its processes have ended
}

// outputFile gets the output of programs, in their directory.
const outputFile = "output"

// launch starts a program with more variables in its environment. Its directory exists.
func launch(dir, name string, args, env []string) (*launched, error) {
	file := filepath.Join(dir, outputFile)
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600) //nolint:gosec // in a directory of this program
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), name, args...) //nolint:gosec // the callers name the programs
	// With a writer that is no file, Wait waits for all processes that have the output. These
	// include the children of the program.
	output := struct{ io.Writer }{out}
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = dir, output, output, endTime
	cmd.Env = append(os.Environ(), env...)
	apart(cmd)
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, out.Close())
	}
	p := &launched{dir: dir, cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		defer out.Close()
		_ = cmd.Wait() // it is killed, or await shows its output
	}()
	return p, nil
}

// Bounds for a busy machine.
const (
	startTime = 2 * time.Minute  // of a server
	endTime   = 10 * time.Second // of the processes of a program that has ended
)

// await waits until the server answers.
func (p *launched) await(ctx context.Context, answers func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		err := answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
			continue
		case <-p.ended:
			err = errors.New("it has ended")
		case <-ctx.Done():
		}
		out, _ := os.ReadFile(filepath.Join(p.dir, outputFile))
		return fmt.Errorf("%s does not answer: %w\n%s", p.cmd.Path, err, out[max(0, len(out)-2000):])
	}
}

// stop kills the program and the processes that it has started.
func (p *launched) stop() {
	_ = kill(p.cmd)
	<-p.ended
}

// serveProgram starts a program that takes a port and keeps files in a directory. It returns
// when the program answers. The function that it returns ends it and removes the directory.
func serveProgram(
	ctx context.Context, run func(dir, port string) (*launched, error), answers func(ctx context.Context, addr string) error,
) (addr string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "weir-incident-")
	if err != nil {
		return "", nil, err
	}
	ports, err := freePorts(1)
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	p, err := run(dir, ports[0])
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	stop = func() {
		p.stop()
		_ = os.RemoveAll(dir)
	}
	addr = net.JoinHostPort("127.0.0.1", ports[0])
	if err := p.await(ctx, func(ctx context.Context) error { return answers(ctx, addr) }); err != nil {
		stop()
		return "", nil, err
	}
	return addr, stop, nil
}

// freePorts returns ports of loopback that are free for the moment. They differ, because all
// are taken at the same time.
func freePorts(n int) (ports []string, err error) {
	var config net.ListenConfig
	var taken []net.Listener
	for range n {
		l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		taken = append(taken, l)
	}
	for _, l := range taken {
		_, port, errPort := net.SplitHostPort(l.Addr().String())
		ports, err = append(ports, port), errors.Join(err, errPort, l.Close())
	}
	return ports, err
}
