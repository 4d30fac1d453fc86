package streamcredit_test

import (
	"context"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// sink counts what clients upload.
type sink struct {
	demopb.UnimplementedStreamServiceServer
	received atomic.Int64
	bare     bool
}

func (s *sink) Upload(stream uploadServer) error {
	if s.bare {
		for {
			if _, err := stream.Recv(); err != nil {
				return nil // the end
			}
			s.received.Add(1)
		}
	}
	in, _, err := streamcredit.ServeReceive(stream)
	for err == nil {
		if _, err = in.Recv(stream.Context()); err == nil {
			s.received.Add(1)
		}
	}
	return nil
}

// rate returns how many elements of 64 bytes a second the sink receives.
func (s *sink) rate(b *testing.B) float64 {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	server := grpc.NewServer()
	demopb.RegisterStreamServiceServer(server, s)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	send, err := uploader(ctx, demopb.NewStreamServiceClient(conn), s.bare)
	if err != nil {
		b.Fatal(err)
	}
	count := func(d time.Duration) float64 {
		before, start := s.received.Load(), time.Now()
		for time.Since(start) < d {
			for range 16 {
				if err := send(&demopb.UploadRequest{Payload: make([]byte, 64)}); err != nil {
					b.Fatal(err)
				}
			}
		}
		return float64(s.received.Load()-before) / time.Since(start).Seconds()
	}
	count(benchSeconds() / 2)
	return count(benchSeconds())
}

func uploader(ctx context.Context, client demopb.StreamServiceClient, bare bool) (func(*demopb.UploadRequest) error, error) {
	if bare {
		stream, err := client.Upload(ctx)
		if err != nil {
			return nil, err
		}
		return stream.Send, nil
	}
	out, err := streamcredit.DialSend(ctx, client.Upload)
	if err != nil {
		return nil, err
	}
	return func(e *demopb.UploadRequest) error { return out.Send(ctx, e) }, nil
}

// BenchmarkUpload is the rate at which a server receives, as a ratio to bare gRPC. There a
// report follows whenever no element is left.
func BenchmarkUpload(b *testing.B) {
	for range b.N {
		var ratios []float64
		for range rounds() {
			bare := (&sink{bare: true}).rate(b)
			ratios = append(ratios, (&sink{}).rate(b)/bare)
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "ratio")
		b.ReportMetric(ratios[0], "ratio-min")
		b.ReportMetric(ratios[len(ratios)-1], "ratio-max")
		b.ReportMetric(0, "ns/op") // says nothing here
	}
}
