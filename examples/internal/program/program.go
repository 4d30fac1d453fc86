// Package program has the common part of the main functions of the examples.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// Parse parses the flags of a program. With -h it prints them on standard output and returns
// flag.ErrHelp. It leaves arguments that are no flags to the caller.
func Parse(set *flag.FlagSet, args []string) error {
	set.SetOutput(io.Discard) // Main prints the error
	switch err := set.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		set.SetOutput(os.Stdout)
		fmt.Printf("Usage of %s:\n", set.Name())
		set.PrintDefaults()
		return err
	case err != nil:
		return fmt.Errorf("%s: %w (-h lists the flags)", set.Name(), err)
	}
	return nil
}

// Main runs a program until it returns. Its context ends with SIGINT and SIGTERM. An error
// is printed and ends the process with status 1. flag.ErrHelp is no such error.
func Main(run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
