package goend

import (
	"context"
	"errors"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weir-go/weir/conformance/conformancepb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// loops is the number of sessions that a client runs at once.
const loops = 4

// Drive is the client end. It plays the scripts of the suite at the other end of conn until there are no more
// or ctx ends.
func Drive(ctx context.Context, conn grpc.ClientConnInterface) error {
	errs := make([]error, loops)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = loop(ctx, conn) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func loop(ctx context.Context, conn grpc.ClientConnInterface) error {
	suite := conformancepb.NewConformanceServiceClient(conn)
	var last *conformancepb.Report
	for {
		next, err := suite.Next(ctx, &conformancepb.NextRequest{Previous: last})
		if err != nil || next.GetDone() {
			return err
		}
		if next.GetFramed() {
			last = channel(ctx, next.GetScript(), creditpb.NewCreditStreamClient(conn))
		} else {
			last = run(ctx, next.GetScript(), suite)
		}
	}
}

// run is a session with embedded Control.
func run(ctx context.Context, script *conformancepb.Script, suite conformancepb.ConformanceServiceClient) *conformancepb.Report {
	var over <-chan struct{}
	open := func(ctx context.Context, opts ...grpc.CallOption) (conformancepb.ConformanceService_RunClient, error) {
		stream, err := suite.Run(ctx, opts...)
		if err == nil {
			over = stream.Context().Done()
		}
		return stream, err
	}
	setup := streamcredit.WithSetup(&conformancepb.RunRequest{Script: script})
	d, err := streamcredit.Dial(ctx, open, append(options(script), setup)...)
	if err != nil {
		return &conformancepb.Report{Id: script.GetId(), Sending: ending(err), Receiving: ending(err)}
	}
	return leave(ctx, script, of(d, requests), over)
}

// channel is a session in Frames.
func channel(ctx context.Context, script *conformancepb.Script, client creditpb.CreditStreamClient) *conformancepb.Report {
	var over <-chan struct{}
	open := func(ctx context.Context, opts ...grpc.CallOption) (creditpb.CreditStream_ChannelClient, error) {
		stream, err := client.Channel(ctx, opts...)
		if err == nil {
			over = stream.Context().Done()
		}
		return stream, err
	}
	query, err := proto.Marshal(script)
	var d *streamcredit.Duplex[[]byte, []byte]
	if err == nil {
		d, err = streamcredit.DialFrames(ctx, open, append(options(script), streamcredit.WithSetup(query))...)
	}
	if err != nil {
		return &conformancepb.Report{Id: script.GetId(), Sending: ending(err), Receiving: ending(err)}
	}
	return leave(ctx, script, of(d, encoded), over)
}

// leave plays the script and ends the call.
func leave(ctx context.Context, script *conformancepb.Script, e *end, over <-chan struct{}) *conformancepb.Report {
	report, _ := play(ctx, script, e, over) // the report has the error
	_ = e.close()                           // the report has this error as well
	return report
}
