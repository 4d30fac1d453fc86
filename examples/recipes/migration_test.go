package recipes_test

import (
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/interceptors"
	"github.com/weir-go/weir/interceptors/breaker"
	"github.com/weir-go/weir/interceptors/retry"
	"github.com/weir-go/weir/interceptors/throttle"
)

// adaptive is a server whose limit adapts.
func adaptive() (*grpc.Server, error) {
	gate, err := admit.New()
	if err != nil {
		return nil, err
	}
	opts, err := interceptors.Server(interceptors.ServerConfig{Gate: gate})
	if err != nil {
		return nil, err
	}
	return grpc.NewServer(opts...), nil
}

// ten is a server that runs ten calls at once and lets nobody wait.
func ten() (*grpc.Server, error) {
	gate, err := admit.New(admit.WithFixedLimit(10), admit.WithoutQueue())
	if err != nil {
		return nil, err
	}
	return grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate))), nil
}

// live is a server whose live traffic has nine tenths of the permits for itself.
func live() (*grpc.Server, error) {
	gate, err := admit.New(admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.9}))
	if err != nil {
		return nil, err
	}
	return grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate,
		interceptors.WithClassFor(admit.Critical, interceptors.Methods("/shop.Live/"))))), nil
}

// hundred is a server that serves each tenant 100 calls a second.
func hundred() (*grpc.Server, error) {
	gate, err := admit.New(admit.WithQuotas(admit.QuotaConfig{Tenant: admit.Rate{PerSecond: 100, Burst: 20}}))
	if err != nil {
		return nil, err
	}
	return grpc.NewServer(grpc.UnaryInterceptor(interceptors.UnaryServer(gate, interceptors.WithTenant(caller)))), nil
}

// careful has the options of a client that retries, breaks circuits and throttles itself.
func careful() ([]grpc.DialOption, error) {
	circuits, err := breaker.New(breaker.Config{FailureRatio: 0.5, OpenFor: 5 * time.Second})
	if err != nil {
		return nil, err
	}
	gentle, err := throttle.New(throttle.Config{})
	if err != nil {
		return nil, err
	}
	return interceptors.Client(interceptors.ClientConfig{
		Breaker: circuits, Throttle: gentle, Retry: &retry.Config{MaxAttempts: 3},
	})
}

// Each piece of the document builds what it says.
func TestMigration(t *testing.T) {
	for name, server := range map[string]func() (*grpc.Server, error){
		"adaptive": adaptive, "ten": ten, "live": live, "hundred": hundred,
	} {
		s, err := server()
		if err != nil {
			t.Errorf("%s: got %v, want a server", name, err)
			continue
		}
		s.Stop()
	}
	if opts, err := careful(); err != nil || len(opts) == 0 {
		t.Errorf("careful: got %d options, %v, want some", len(opts), err)
	}
}
