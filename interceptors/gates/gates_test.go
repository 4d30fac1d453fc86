package gates_test

import (
	"testing"

	"github.com/weir-go/weir/interceptors/gates"
	"github.com/weir-go/weir/interceptors/internal/calltest"
)

const shopGates = `{"gates": [
  {"name": "buy", "methods": ["/shop.Orders/Buy"], "limit": {"algorithm": "fixed", "limit": 1}, "queue": null},
  {"name": "feed", "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}},
  {"name": "rest", "limit": {"algorithm": "gradient"}, "quotas": {"tenant": {"rate": 1}}}
]}`

// A document that is wrong, or that needs a restart, changes no gate.
func TestUpdateSaysWhatIsWrong(t *testing.T) {
	rules, err := gates.FromJSON([]byte(shopGates))
	if err != nil {
		t.Fatal(err)
	}
	for document, says := range map[string]string{
		`{"gates": [{"name": "buy", "limit": {}}, {"name": "new"}]}`:                                         `line 1: gates[1]: got a gate "new", want one of those`,
		`{"gates": [{"name": "buy", "limit": {}, "methods": ["/shop.Orders/"]}]}`:                            `line 1: gates[0].methods: got methods ["/shop.Orders/"], want those of the start`,
		`{"gates": [{"name": "rest", "methods": ["/shop.Orders/"]}]}`:                                        "gates[0].methods: got methods",
		`{"gates": [{"name": "rest", "streams": true}]}`:                                                     "gates[0].streams: got true, want false",
		"{\"gates\": [{\"name\": \"buy\", \"limit\": {}},\n{\"name\": \"rest\", \"limit\": {\"min\": -1}}]}": "line 2: gates[1].limit.min: got -1",
	} {
		calltest.WantConfigError(t, rules.Update([]byte(document)), gates.ErrConfig, says)
		if got := rules[0].Gate.Limit(); got != 1 {
			t.Errorf("%s: got a limit of %d, want 1 still", document, got)
		}
	}
}

func TestFromJSONSaysWhatIsWrong(t *testing.T) {
	for document, says := range map[string]string{
		"": "gates: invalid configuration: document: line 1: got nothing",
		"{\"gates\": [\n{\"name\": \"a\", \"methods\": [\"shop.Orders/Buy\"]}]}": `gates: invalid configuration: document: line 2: gates[0].methods[0]: got "shop.Orders/Buy", want "/shop.Orders/Buy"`,
		`{"gates": [{"name": "a", "methods": []}]}`:                              "gates[0].methods: got no method",
		`{"gates": [{"name": "a", "methods": [""]}]}`:                            `gates[0].methods[0]: got "", want`,
		`{"gates": [{"name": "a", "quotas": {"classes": {"b": {"rate": 1}}}}]}`:  "gates[0].quotas.classes.b: got a class that the gate does not have",
	} {
		rules, err := gates.FromJSON([]byte(document))
		calltest.WantConfigError(t, err, gates.ErrConfig, says)
		if rules != nil {
			t.Errorf("%s: got rules with the error, want none", document)
		}
	}
	_, err := gates.FromJSON([]byte(`{"gates": [{"name": "a", "methods": ["a"], "limit": {"min": 0}}, {}]}`))
	for _, says := range []string{`gates[0].limit.min: got 0`, `gates[1]: got no "name"`, `gates[0].methods[0]: got "a"`} {
		calltest.WantConfigError(t, err, gates.ErrConfig, says)
	}
}
