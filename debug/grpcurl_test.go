package debug_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/interceptors"
)

// A command is a grpcurl of the documentation.
type command struct{ verb, symbol string }

func documented(t *testing.T) (all []command) {
	t.Helper()
	text, err := os.ReadFile("../docs/debug.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^    grpcurl -plaintext localhost:50051 (list|describe|)\s*(\S*)$`)
	for _, m := range line.FindAllSubmatch(text, -1) {
		all = append(all, command{string(m[1]), string(m[2])})
	}
	if n := strings.Count(string(text), "    grpcurl "); len(all) < 4 || len(all) != n {
		t.Fatalf("docs/debug.md: got %d of %d commands that this test can read, want all, and four or more", len(all), n)
	}
	return all
}

// The commands of the documentation work, at a server whose gate is full. grpcurl knows nothing of
// the service but what reflection tells, and neither does this test.
func TestGrpcurl(t *testing.T) {
	gate := must(admit.New(admit.WithName("api"), admit.WithFixedLimit(1), admit.WithoutQueue()))(t)
	p := must(gate.Acquire(t.Context(), admit.Call{}))(t)
	defer p.Release(admit.Ignored)
	server := grpc.NewServer(must(interceptors.Server(interceptors.ServerConfig{Gate: gate}))(t)...)
	debug.Register(server, must(debug.NewHandler(gate))(t))
	reflection.Register(server)
	lis := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	served := make(chan error, 1)
	go func() { served <- server.Serve(lis) }()
	t.Cleanup(func() { server.Stop(); <-served })
	conn := must(grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials())))(t)
	t.Cleanup(func() { _ = conn.Close() })
	program, err := exec.LookPath("grpcurl")
	if err != nil {
		t.Log("NOT CHECKED with grpcurl itself, because there is none on the PATH")
	}
	for _, c := range documented(t) {
		outputs := []string{run(t, conn, c)}
		if program != "" {
			args := slices.DeleteFunc([]string{"-plaintext", lis.Addr().String(), c.verb, c.symbol}, func(s string) bool { return s == "" })
			out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput()
			if err != nil {
				t.Errorf("grpcurl %v: got %v, %s, want no error", args, err, out)
			}
			outputs = append(outputs, string(out))
		}
		want := map[string]string{"list": "weir.debug.v1.DebugService", "describe": "weir.debug.v1", "": `"api"`}[c.verb]
		for _, out := range outputs {
			if !strings.Contains(out, want) {
				t.Errorf("%+v: got %s, want %s in it", c, out, want)
			}
		}
	}
}

// run does what grpcurl does.
func run(t *testing.T, conn *grpc.ClientConn, c command) string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream := must(reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx))(t)
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
		return must(stream.Recv())(t)
	}
	if c.verb == "list" {
		return ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}).String()
	}
	symbol, method, _ := strings.Cut(c.symbol, "/")
	found := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: symbol},
	}).GetFileDescriptorResponse()
	set := &descriptorpb.FileDescriptorSet{}
	for _, raw := range found.GetFileDescriptorProto() {
		file := &descriptorpb.FileDescriptorProto{}
		if err := proto.Unmarshal(raw, file); err != nil {
			t.Fatal(err)
		}
		set.File = append(set.File, file)
	}
	files := must(protodesc.NewFiles(set))(t)
	d := must(files.FindDescriptorByName(protoreflect.FullName(symbol)))(t)
	if c.verb == "describe" {
		return string(d.FullName())
	}
	m := d.(protoreflect.ServiceDescriptor).Methods().ByName(protoreflect.Name(method))
	answer := dynamicpb.NewMessage(m.Output())
	if err := conn.Invoke(ctx, "/"+c.symbol, dynamicpb.NewMessage(m.Input()), answer); err != nil {
		t.Fatalf("%s: got %v, want an answer of a full server", c.symbol, err)
	}
	return string(must(protojson.Marshal(answer))(t))
}
