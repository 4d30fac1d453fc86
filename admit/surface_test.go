package admit_test

import (
	"reflect"
	"testing"

	"github.com/weir-go/weir/admit"
)

// Other packages of weir get these from package inside. Programs have no use for them.
func TestGateHidesWhatSiblingsNeed(t *testing.T) {
	gate := reflect.TypeFor[*admit.Gate]()
	functions := reflect.ValueOf(gateFuncs)
	for i := range functions.NumField() {
		name := functions.Type().Field(i).Name
		if functions.Field(i).IsNil() {
			t.Errorf("inside: got no %s, want one", name)
		}
		if _, shown := gate.MethodByName(name); shown {
			t.Errorf("Gate: got the method %s, want it in package inside alone", name)
		}
	}
	if functions.NumField() < 8 {
		t.Errorf("inside: got %d functions, want at least 8", functions.NumField())
	}
}
