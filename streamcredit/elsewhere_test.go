package streamcredit_test

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

// receiveElsewhere runs this program as a client that receives from the server at addr, for
// TestMain, until it is killed. It says when the first element is in.
func receiveElsewhere(addr string) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	recv := receiveFrom(conn, os.Getenv("WEIR_STOPPED_KIND"))
	for n := 0; err == nil; n++ {
		if err = recv(); n == 0 {
			fmt.Println(err)
		}
	}
	os.Exit(0)
}

// receiveFrom opens a stream and returns how to receive from it.
func receiveFrom(conn *grpc.ClientConn, kind string) func() error {
	ctx, window := context.Background(), streamcredit.WithWindow(1<<20)
	if kind == "frames" {
		both, err := streamcredit.DialFrames(ctx, creditpb.NewCreditStreamClient(conn).Channel, streamcredit.WithReceiveOnly(), window)
		return func() error {
			if err == nil {
				_, err = both.In.Recv(ctx)
			}
			return err
		}
	}
	in, err := streamcredit.DialReceive(ctx, demopb.NewStreamServiceClient(conn).Subscribe, window)
	return func() error {
		if err == nil {
			_, err = in.Recv(ctx)
		}
		return err
	}
}
