// Program conformance checks ends of the credit protocol against its rules. It exchanges raw messages with
// them. An end under test must implement proto/weir/conformance/v1/conformance.proto.
//
//	go run ./conformance                     weir itself, both ends of it
//	go run ./conformance -target HOST:PORT   a server under test, in any language
//	go run ./conformance -listen HOST:PORT   clients under test, which call the suite there
//	go run ./conformance -serve HOST:PORT    run weir's server, for other suites
//	go run ./conformance -connect HOST:PORT  run weir's client, for other suites
//
// With -listen and -serve it first prints a line with the address, "listening at 127.0.0.1:41017", so that port 0
// is of use. It prints a line for each rule. It exits with 1 if a rule failed, and with 2 if it could not run.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/weir-go/weir/conformance/internal/program"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := program.Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
