package calltest

import (
	"context"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Fails is an invoker that fails with a code; OK does not fail.
func Fails(code codes.Code) grpc.UnaryInvoker {
	err := status.Error(code, "as told")
	return func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
		return err
	}
}

// Aside runs f in a goroutine that survives its panic.
func Aside(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		f()
	}()
	<-done
}

// Ends is an invoker that ends with an error.
func Ends(err error) grpc.UnaryInvoker {
	return func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error { return err }
}

// Detailed is an error as another process sends it, with an ErrorInfo.
func Detailed(code codes.Code, domain, reason string) error {
	st, err := status.New(code, "").WithDetails(&errdetails.ErrorInfo{Reason: reason, Domain: domain})
	if err != nil {
		return err
	}
	return st.Err()
}

// A Deaf is a stream that does not call OnFinish. RecvMsg returns Err.
type Deaf struct {
	grpc.ClientStream
	Err error
}

// RecvMsg implements grpc.ClientStream.
func (d *Deaf) RecvMsg(any) error { return d.Err }
