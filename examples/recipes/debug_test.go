package recipes_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
	"github.com/weir-go/weir/examples/demopb"
	debugpb "github.com/weir-go/weir/proto/weir/debug/v1"
)

// admin serves the page to operators, and the same content to grpcurl. It needs the authentication of your other
// admin pages.
func admin(server *grpc.Server, gate *admit.Gate) (http.Handler, error) {
	page, err := debug.NewHandler(gate) // and breakers, throttles, meters, monitors
	if err != nil {
		return nil, err
	}
	debug.Register(server, page)
	mux := http.NewServeMux()
	mux.Handle("/debug/weir", page)
	return mux, nil
}

// logged returns a gate that logs changes of its state, and one refusal a second for each reason.
func logged() (*admit.Gate, error) {
	return admit.New(admit.WithName("api"), admit.WithLogger(slog.Default()))
}

func TestAdmin(t *testing.T) {
	gate, err := logged()
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	demopb.RegisterDemoServiceServer(server, service{})
	h, err := admin(server, gate)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/debug/weir?format=json", http.NoBody))
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"api"`) {
		t.Errorf("the page: got %d, %s, want the gate api", w.Code, w.Body)
	}
	if _, ok := server.GetServiceInfo()[debugpb.DebugService_ServiceDesc.ServiceName]; !ok {
		t.Errorf("services: got %v, want %s", server.GetServiceInfo(), debugpb.DebugService_ServiceDesc.ServiceName)
	}
}
