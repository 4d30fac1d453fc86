package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/weir-go/weir/examples/internal/child"
	"github.com/weir-go/weir/examples/internal/overload"
)

// A launcher starts a server and a client of it. It calls tell with each report of the
// server, one at a time, until stop has returned.
type launcher func(ctx context.Context, c config, tell func(report)) (client *overload.Client, stop func() error, err error)

const connections = 4

// launchChild starts a server as a process with one processor. The callers have the others.
func launchChild(ctx context.Context, c config, tell func(report)) (*overload.Client, func() error, error) {
	p, err := child.Start(ctx, c, 1)
	if err != nil {
		return nil, nil, fmt.Errorf("overload: start a server: %w", err)
	}
	if !p.Lines.Scan() {
		return nil, nil, errors.Join(errors.New("overload: start a server: it printed no address"), p.Lines.Err(), p.Stop())
	}
	client, err := overload.Connect(p.Lines.Text(), connections)
	if err != nil {
		return nil, nil, errors.Join(err, p.Stop())
	}
	var reader sync.WaitGroup
	reader.Go(func() {
		for p.Lines.Scan() {
			var r report
			if json.Unmarshal(p.Lines.Bytes(), &r) == nil { // the last line may be cut off
				tell(r)
			}
		}
	})
	return client, func() error {
		err := client.Close()
		err = errors.Join(err, p.Kill())
		reader.Wait()
		return errors.Join(err, p.Wait())
	}, nil
}
