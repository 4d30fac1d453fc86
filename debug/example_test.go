package debug_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/weir-go/weir/admit"
	"github.com/weir-go/weir/debug"
)

// Mount the page on a mux that only operators reach.
func ExampleNewHandler() {
	gate, err := admit.New(admit.WithName("api"))
	if err != nil {
		fmt.Println(err)
		return
	}
	page, err := debug.NewHandler(gate)
	if err != nil {
		fmt.Println(err)
		return
	}
	admin := http.NewServeMux()
	admin.Handle("/debug/weir", page)

	answer := httptest.NewRecorder()
	admin.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/debug/weir?format=json", http.NoBody))
	fmt.Println(answer.Code, answer.Header().Get("Content-Type"), strings.Contains(answer.Body.String(), `"api"`))
	// Output: 200 application/json; charset=utf-8 true
}
