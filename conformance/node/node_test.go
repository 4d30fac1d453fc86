// Package node_test has another language speak the credit protocol with weir: credit.js and server.js,
// which know nothing of weir but its proto files.
package node_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
	"github.com/weir-go/weir/streamcredit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rules are the numbers of the rules that credit.js tries, in its order.
var rules = []string{"1", "2", "3", "4", "5", "16", "17", "18", "19", "20", "34"}

type (
	subscribeServer = grpc.BidiStreamingServer[demopb.SubscribeRequest, demopb.SubscribeResponse]
	uploadServer    = grpc.BidiStreamingServer[demopb.UploadRequest, demopb.UploadResponse]
)

// window is what the receiver of weir's asks for: credit.js knows it.
const window = 4

// An upload is what the application has seen of one: its elements, and how it ended.
type upload struct {
	numbers []int64
	err     error
}

// aware is a StreamService that is made with weir.
type aware struct {
	demopb.UnimplementedStreamServiceServer

	uploads chan upload
}

// Subscribe sends as many elements as the query says: none, if there is no query.
func (aware) Subscribe(stream subscribeServer) error {
	out, query, err := streamcredit.ServeSend(stream)
	if err != nil {
		return err
	}
	for n := range query.GetCount() {
		if err := out.Send(stream.Context(), element(n+1, query)); err != nil {
			return err
		}
	}
	return out.Finish(stream.Context())
}

func element(n int64, query *demopb.SubscribeRequest) *demopb.SubscribeResponse {
	return &demopb.SubscribeResponse{Number: n, Payload: make([]byte, query.GetPayloadBytes())}
}

// Upload takes elements and is done with none of them, so that it asks for no more than
// its window, however soon it sees them.
func (s aware) Upload(stream uploadServer) error {
	in, _, err := streamcredit.ServeReceive(stream, streamcredit.WithWindow(window), streamcredit.WithExplicitConsume())
	if err != nil {
		return err
	}
	var seen upload
	for e, err := range in.All(stream.Context()) {
		if err != nil {
			seen.err = err
			break
		}
		seen.numbers = append(seen.numbers, e.GetNumber())
	}
	s.uploads <- seen
	return seen.err
}

// careless is a StreamService that counts nothing. It opens as the protocol says, and
// then sends an element more than there are, whatever it was asked for.
type careless struct {
	demopb.UnimplementedStreamServiceServer
}

func (careless) Subscribe(stream subscribeServer) error {
	query, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.Send(&demopb.SubscribeResponse{Credit: opened(0)}); err != nil {
		return err
	}
	for n := range query.GetCount() + 1 {
		if err := stream.Send(element(n+1, query)); err != nil {
			return err
		}
	}
	return nil
}

// Upload takes one element more than it asked for, without a word.
func (careless) Upload(stream uploadServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	if err := stream.Send(&demopb.UploadResponse{Credit: opened(window)}); err != nil {
		return err
	}
	for range window + 1 {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	return nil
}

// opened is the Open of a server that asks for n elements; 0: that sends.
func opened(n int64) *creditpb.Control {
	o := &creditpb.Open{MinVersion: 1, MaxVersion: 1, WillSend: n == 0, WillReceive: n > 0}
	if n > 0 {
		o.Initial = &creditpb.Request{N: n}
	}
	return &creditpb.Control{Kind: &creditpb.Control_Open{Open: o}}
}

func TestNodeSpeaksWithWeir(t *testing.T) {
	node := installed(t)
	uploads := make(chan upload, 2) // one more than there should be
	output, err := run(t, node, aware{uploads: uploads})
	if err != nil {
		t.Fatalf("node credit.js = %v, want no error; its output:\n%s", err, output)
	}
	t.Logf("node credit.js:\n%s", output)
	if got := said(output, "ok"); !slices.Equal(got, rules) {
		t.Errorf("rules that are ok = %v, want %v", got, rules)
	}
	if len(uploads) != 1 {
		t.Fatalf("uploads = %d, want 1", len(uploads))
	}
	got := <-uploads
	if want := []int64{1, 2, 3, 4}; !slices.Equal(got.numbers, want) {
		t.Errorf("elements that the application saw = %v, want %v: what it asked for", got.numbers, want)
	}
	if v, ok := errors.AsType[*streamcredit.ProtocolError](got.err); !ok || v.Reason != streamcredit.CreditExceeded {
		t.Errorf("error that the application saw = %v, want %s", got.err, streamcredit.CreditExceeded)
	}
}

// Each rule has to be one that can fail.
func TestNodeNotices(t *testing.T) {
	node := installed(t)
	output, err := run(t, node, careless{})
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Fatalf("node credit.js with a careless server = %v, want exit status 1; its output:\n%s", err, output)
	}
	if got := said(output, "FAIL"); !slices.Equal(got, rules) {
		t.Errorf("rules that failed with a careless server = %v, want %v; the output:\n%s", got, rules, output)
	}
}

// run runs credit.js with a server and returns what it printed.
func run(t *testing.T, node string, server demopb.StreamServiceServer) (output string, err error) {
	t.Helper()
	p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { demopb.RegisterStreamServiceServer(r, server) }, grpctest.OverSocket())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // each of its calls has 10 s
	defer cancel()
	command := exec.CommandContext(ctx, node, "credit.js", p.Addr)
	command.Env = append(os.Environ(), "no_grpc_proxy=127.0.0.1") // grpc-js would ask a proxy for the way to the loopback
	printed, err := command.CombinedOutput()
	return string(printed), err
}

// said returns the numbers of the rules of which the output says word, in its order.
func said(output, word string) (numbers []string) {
	for _, line := range regexp.MustCompile(`(?m)^`+word+` (\d+) `).FindAllStringSubmatch(output, -1) {
		numbers = append(numbers, line[1])
	}
	return numbers
}

// installed returns the path of node. If it or what credit.js needs is missing, the test is
// skipped, or fails where WEIR_NODE=required says that it has to run.
func installed(t *testing.T) (node string) {
	t.Helper()
	var missing []string
	node, err := exec.LookPath("node")
	if err != nil {
		missing = append(missing, err.Error())
	}
	for _, dir := range []string{"node_modules/@grpc/grpc-js", "node_modules/@grpc/proto-loader"} {
		if _, err := os.Stat(dir); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) == 0 {
		return node
	}
	message := fmt.Sprintf("credit.js did NOT run: %s; Node 20.11 or later is needed, and: "+
		"cd conformance/node && npm ci --no-audit --no-fund --ignore-scripts", strings.Join(missing, "; "))
	if os.Getenv("WEIR_NODE") == "required" {
		t.Fatal(message)
	}
	t.Skip(message)
	return ""
}
