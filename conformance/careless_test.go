package main_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/weir-go/weir/conformance/conformancepb"
	"github.com/weir-go/weir/conformance/internal/rules"
	"github.com/weir-go/weir/internal/grpctest"
	creditpb "github.com/weir-go/weir/proto/weir/credit/v1"
)

// careless is a server end that counts and checks nothing: it opens, asks for more than it was
// told to, sends everything that it has and one more, and takes everything.
type careless struct {
	conformancepb.UnimplementedConformanceServiceServer
}

func (careless) Outcome(_ context.Context, req *conformancepb.OutcomeRequest) (*conformancepb.OutcomeResponse, error) {
	return &conformancepb.OutcomeResponse{Report: &conformancepb.Report{Id: req.GetId()}}, nil
}

func (careless) Run(stream conformancepb.ConformanceService_RunServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if err := stream.SetHeader(metadata.Pairs("weir-credit-version", "1")); err != nil {
		return err
	}
	s := first.GetScript()
	open := &creditpb.Open{
		MinVersion: 1, MaxVersion: 1, WillSend: s.GetSend() != nil, WillReceive: s.GetReceive() != nil,
		Initial: &creditpb.Request{N: int64(s.GetReceive().GetWindow()) + 1},
	}
	m := &conformancepb.RunResponse{Credit: &creditpb.Control{Kind: &creditpb.Control_Open{Open: open}}}
	for n := int64(0); s.GetSend() != nil && n <= min(100, s.GetSend().GetCount()); n++ {
		if err := stream.Send(m); err != nil {
			return err
		}
		m = &conformancepb.RunResponse{Number: n + 1}
	}
	if err := stream.Send(m); err != nil {
		return err
	}
	for err == nil {
		_, err = stream.Recv()
	}
	return nil
}

// Each rule has to be one that can fail, and a careless end passes none.
func TestRulesNotice(t *testing.T) {
	var passed []int
	for _, rule := range rules.All() {
		t.Run(rule.Title(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := grpctest.Start(t, func(r grpc.ServiceRegistrar) { conformancepb.RegisterConformanceServiceServer(r, careless{}) },
					grpctest.DialOptions(rules.DialOptions()...))
				c := rules.Config{Settle: time.Second, Exact: true, Part: 100}
				result := rules.Check(t.Context(), rule, rules.ServerEnd{Conn: p.Conn}, c)
				if result == (rules.Result{}) {
					passed = append(passed, rule.Number)
				}
			})
		})
	}
	if len(passed) > 0 {
		t.Errorf("got rules %v passed by a careless end, want none", passed)
	}
}
