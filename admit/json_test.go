package admit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-go/weir/admit"
)

// The document of FromJSON's description.
const everyKey = `{
  "limit": {"algorithm": "adaptive", "initial": 32, "min": 1, "max": 1000},
  "queue": {"capacity": 64, "max_wait": "500ms", "policy": "reject"},
  "classes": {
    "critical": {"share": 0.5},
    "background": {"max": 0.25},
    "reports": {"class": 4, "priority": 150, "share": 0.1, "max": 0.5}
  },
  "quotas": {
    "classes": {"reports": {"rate": 2.5, "burst": 10}},
    "tenant": {"rate": 50, "burst": 100},
    "tenants": {"acme": {"rate": 500}},
    "max_tenants": 100000
  },
  "dry_run": false,
  "max_retry_after": "1s",
  "max_open": 5000
}`

func fromJSON(t *testing.T, document string) admit.Option {
	t.Helper()
	o, err := admit.FromJSON([]byte(document))
	if err != nil {
		t.Fatalf("%s: got %v, want an option", document, err)
	}
	return o
}

func TestFromJSON(t *testing.T) {
	g := newGate(t, 5, fromJSON(t, everyKey))
	if s := g.Stats(); s.Limit != 32 || s.QueueCapacity != 64 || s.Classes[4] != "reports" || s.DryRun {
		t.Errorf("got %+v, want limit 32, a queue of 64, class 4 reports", s)
	}
	update(t, g, fromJSON(t, `{"dry_run": true}`))
	if s := g.Stats(); s.Limit != 32 || s.QueueCapacity != 64 || !s.DryRun {
		t.Errorf("got %+v, want what it was, and a dry run", s)
	}
	update(t, g, fromJSON(t, `{"limit": {"algorithm": "fixed", "limit": 7}, "queue": null}`))
	if s := g.Stats(); s.Limit != 7 || s.QueueCapacity != 0 {
		t.Errorf("got %+v, want limit 7 and no queue", s)
	}
	if err := g.Update(fromJSON(t, `{"classes": {"default": {"share": 0.6}}}`)); err == nil {
		t.Error("shares of 1.2: got no error, want one")
	} else {
		wantError(t, err, admit.ErrConfig, "got shares of 1.2 together")
	}
}

// One document for two gates makes two limits.
func TestFromJSONTwice(t *testing.T) {
	o := fromJSON(t, `{"limit": {}}`)
	a, b := newGate(t, 1, o), newGate(t, 1, o)
	teach(t, a, time.Millisecond)
	if got, want := b.Stats().Limit, 32; got != want {
		t.Errorf("limit of the other gate: got %d, want %d still", got, want)
	}
}

// Errors say where in the document something is wrong, in its own words.
func TestFromJSONSaysWhatIsWrong(t *testing.T) {
	for document, says := range map[string]string{
		"":                      "document: line 1: got nothing, want an object",
		" \n\t ":                "line 1: got nothing, want an object",
		"\xef\xbb\xbf{}":        "line 1: got a byte order mark, want UTF-8 without one",
		"\xff\xfe{\x00}\x00":    "line 1: got bytes that are not UTF-8",
		"{\"\xc3\x28\": 1}":     "line 1: got bytes that are not UTF-8",
		"null":                  "line 1: got null, want an object",
		"[]":                    "line 1: got an array, want an object",
		"true":                  "line 1: got true, want an object",
		"{} {}":                 "line 1: got { after the object, want nothing",
		"{}:":                   "line 1: got : after the object",
		"{}\n\ntrailing":        "line 3: got trailing after the object, want nothing",
		"{":                     "line 1: got the end of the document",
		"{\"limit\":\n{\"min\"": "line 2: limit.min: got the end of the document",
		"{\n  \"limit\": {\n    \"min\": NaN\n  }\n}":                        "line 3: limit.min: got NaN, want JSON",
		"{\n\"quotas\": {\"tenant\": {\"rate\": Infinity}}}":                 "line 2: quotas.tenant.rate: got Infinity, want JSON",
		"{\"limit\": {\"min\": 0x10}}":                                       "limit: got x10, want JSON",
		"{'limit': {}}":                                                      "line 1: got 'limit', want JSON",
		"{\n// comment\n}":                                                   "line 2: got //, want JSON",
		`{"Limit": {}}`:                                                      `line 1: Limit: unknown key, want "limit"`,
		`{"limits": {}}`:                                                     `limits: unknown key, want one of limit, queue, classes, quotas, dry_run`,
		"{\n\"queue\":\n{\"POLICY\": \"reject\"}}":                           `line 3: queue.POLICY: unknown key, want "policy"`,
		`{"queue": {"size": 1}}`:                                             "queue.size: unknown key, want one of capacity, max_wait, policy",
		`{"limit": {"minimum": 1}}`:                                          "limit.minimum: unknown key, want one of algorithm, initial, min, max",
		`{"classes": {"classes": {"class": 4, "Priority": 5}}}`:              `classes.classes.Priority: unknown key, want "priority"`,
		`{"classes": {"critical": {"weight": 1}}}`:                           "classes.critical.weight: unknown key",
		"{\"dry_run\": true,\n\"dry_run\": false}":                           "line 2: dry_run: got the key twice",
		`{"classes": {"critical": {}, "critical": {}}}`:                      "classes.critical: got the key twice",
		`{"limit": {"algorithm": "bbr"}}`:                                    `limit.algorithm: got "bbr", want one of adaptive, fixed, aimd, vegas, gradient`,
		`{"limit": {"algorithm": 3}}`:                                        "limit.algorithm: got 3, want a text",
		`{"limit": {"limit": 5}}`:                                            "limit.limit: unknown key, want one of algorithm, initial, min, max",
		`{"limit": {"algorithm": "fixed", "max": 5}}`:                        "limit.max: unknown key, want one of algorithm, limit",
		`{"limit": {"algorithm": "fixed"}}`:                                  `limit: got a fixed limit without "limit"`,
		`{"limit": {"algorithm": "fixed", "limit": -5}}`:                     "limit.limit: got -5, want 1 to 1048576",
		`{"limit": {"algorithm": "fixed", "limit": 0}}`:                      "limit.limit: got 0, want 1 to 1048576",
		`{"limit": {"algorithm": "fixed", "limit": 1e3}}`:                    "limit.limit: got 1e3, want a whole number",
		`{"limit": {"initial": 2.5}}`:                                        "limit.initial: got 2.5, want a whole number",
		`{"limit": {"initial": "many"}}`:                                     `limit.initial: got "many", want a whole number`,
		`{"limit": {"initial": 99999999999999999999999}}`:                    "limit.initial: got 99999999999999999999999, want 1 to 1048576",
		`{"limit": {"min": 9, "max": 3}}`:                                    "limit.max: got 3, want min (9) to 1048576",
		`{"limit": {"min": 9, "initial": 3}}`:                                "limit.initial: got 3, want min (9) to max",
		`{"limit": {"algorithm": "aimd", "backoff": 2}}`:                     "limit.backoff: got 2, want 0.5 to",
		`{"limit": {"algorithm": "aimd", "backoff": 0}}`:                     "limit.backoff: got 0, want more than 0",
		`{"limit": {"algorithm": "aimd", "backoff": 1e999}}`:                 "limit.backoff: got 1e999, want a number that is not so large",
		`{"limit": {"algorithm": "aimd", "timeout": 5}}`:                     `limit.timeout: got 5, want a duration such as "250ms"`,
		`{"limit": {"algorithm": "aimd", "timeout": "0s"}}`:                  "limit.timeout: got 0, want more than 0",
		`{"limit": {"algorithm": "vegas", "alpha": 8}}`:                      "limit.beta: got 6, want at least alpha (8)",
		`{"limit": {"algorithm": "vegas", "probe_windows": -1}}`:             "limit.probe_windows: got -1, want 1 to",
		`{"limit": {"algorithm": "gradient", "tolerance": 0.5}}`:             "limit.tolerance: got 0.5, want 1 to 10",
		`{"limit": {"algorithm": "gradient", "smoothing": "much"}}`:          `limit.smoothing: got "much", want a number`,
		`{"limit": {"algorithm": "gradient", "alpha": 3}}`:                   "limit.alpha: unknown key, want one of algorithm, initial, min, max, tolerance, smoothing, long_windows",
		`{"queue": {"max_wait": "soon"}}`:                                    `queue.max_wait: got "soon", want a duration`,
		`{"queue": {"max_wait": "-1s"}}`:                                     `queue.max_wait: got "-1s", want a duration`,
		`{"queue": {"policy": "drop"}}`:                                      `queue.policy: got "drop", want one of reject, block`,
		`{"queue": {"policy": ""}}`:                                          `queue.policy: got "", want one of`,
		`{"queue": {"order": "fifo"}}`:                                       "queue.order: unknown key, want one of capacity, max_wait, policy",
		`{"max_retry_after": "5ms"}`:                                         `max_retry_after: got "5ms", want 10ms to 1m0s`,
		`{"max_retry_after": "0s"}`:                                          `max_retry_after: got "0s", want 10ms to 1m0s`,
		`{"max_retry_after": "61s"}`:                                         `max_retry_after: got "61s", want 10ms to 1m0s`,
		`{"max_retry_after": 100}`:                                           "max_retry_after: got 100, want a duration",
		`{"max_retry_after": null}`:                                          "max_retry_after: got null",
		`{"queue": {"capacity": "many"}}`:                                    `queue.capacity: got "many", want a whole number`,
		`{"queue": {"capacity": -1}}`:                                        "queue.capacity: got -1, want 0 to 1048576",
		`{"queue": []}`:                                                      "queue: got an array, want an object",
		`{"classes": {"checkout": {"share": 0.1}}}`:                          "classes.checkout: got a class that is not one of the first four",
		`{"classes": {"critical": {"class": 3}}}`:                            "classes.critical.class: got class 3, want 1 or nothing",
		`{"classes": {"checkout": {"class": 300}}}`:                          "classes.checkout.class: got 300, want 0 to 7",
		`{"classes": {"checkout": {"class": 8}}}`:                            "classes.checkout.class: got 8, want 0 to 7",
		`{"classes": {"a": {"class": 4}, "b": {"class": 4}}}`:                "classes.b: got class 4, as a has, want one of its own",
		`{"classes": {"": {"class": 4}}}`:                                    `classes."": got an empty name`,
		`{"classes": {"critical": {"share": 2}}}`:                            "classes.critical.share: got 2, want 0 to 1",
		`{"classes": {"critical": {"share": 0.5, "max": 0.2}}}`:              "classes.critical.max: got 0.2, want 0 (all) or from its share (0.5) to 1",
		`{"classes": {"critical": {"priority": 1001}}}`:                      "classes.critical.priority: got 1001, want 1 to 1000",
		`{"classes": {"critical": {"share": 0.7}, "default": {"share": 1}}}`: "classes: got shares of 1.7 together",
		`{"limit": null}`:                                                    "limit: got null, want a value, or leave the key out",
		`{"dry_run": null}`:                                                  "dry_run: got null",
		`{"dry_run": "yes"}`:                                                 `dry_run: got "yes", want true or false`,
		`{"classes": null}`:                                                  "classes: got null",
		`{"classes": {"critical": null}}`:                                    "classes.critical: got null",
		`{"classes": {"critical": {"share": null}}}`:                         "classes.critical.share: got null",
		`{"queue": {"policy": null}}`:                                        "queue.policy: got null",
		`{"quotas": {"tenant": {"rate": 0}}}`:                                "quotas.tenant.rate: got 0, want more than 0, or null",
		`{"quotas": {"tenant": {"rate": -2}}}`:                               "quotas.tenant.rate: got -2, want 0 to 1e+09",
		`{"quotas": {"tenant": {"rate": 1, "burst": 0}}}`:                    "quotas.tenant.burst: got 0, want 1 to",
		`{"quotas": {"tenant": {}}}`:                                         `quotas.tenant: got neither "rate" nor "burst"`,
		`{"quotas": {"tenants": {"": {"rate": 1}}}}`:                         `quotas.tenants."": got an empty name`,
		`{"quotas": {"tenants": {"a.b": {"per_second": 1}}}}`:                `quotas.tenants."a.b".per_second: unknown key`,
		`{"quotas": {"max_tenants": 0}}`:                                     "quotas.max_tenants: got 0, want 1 to",
		`{"quotas": 5}`:                                                      "quotas: got 5, want an object",
		strings.Repeat(`{"limit":`, 99):                                      "got values nested 16 deep, want fewer",
	} {
		o, err := admit.FromJSON([]byte(document))
		wantError(t, err, admit.ErrConfig, says)
		if o != nil {
			t.Errorf("%s: got an option with the error, want none", document)
		}
		for _, field := range []string{"json:", "Go ", "Max", "Min:", "Initial", "struct"} {
			if err != nil && strings.Contains(err.Error(), field) {
				t.Errorf("%s: got %v, want the document's words, not %q", document, err, field)
			}
		}
	}
}

// All mistakes of a document are named at once, in the order in which they stand.
func TestFromJSONSaysEverything(t *testing.T) {
	_, err := admit.FromJSON([]byte(`{
	"limit": {"algorithm": "vegas", "initial": 0, "alpha": "x"},
	"queue": {"size": 3,
		"policy": "drop"},
	"clases": {}
}`))
	want := `admit: invalid configuration: document: line 5: clases: unknown key, want one of limit, queue, classes, quotas, dry_run, max_retry_after, max_open
line 2: limit.initial: got 0, want 1 to 1048576
line 2: limit.alpha: got "x", want a number
line 3: queue.size: unknown key, want one of capacity, max_wait, policy
line 4: queue.policy: got "drop", want one of reject, block`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// Every algorithm, with every key, from a document.
func TestFromJSONAlgorithms(t *testing.T) {
	for document, want := range map[string]int{
		`{}`:                                   32,
		`{"algorithm": "adaptive", "min": 50}`: 50,
		`{"algorithm": "fixed", "limit": 20}`:  20,
		`{"algorithm": "aimd", "initial": 21, "min": 1, "max": 1000, "timeout": "5s", "backoff": 0.9}`:                             21,
		`{"algorithm": "vegas", "initial": 22, "min": 1, "max": 1000, "alpha": 3, "beta": 6, "probe_windows": 1000}`:               22,
		`{"algorithm": "gradient", "initial": 23, "min": 1, "max": 1000, "tolerance": 1.5, "smoothing": 0.2, "long_windows": 600}`: 23,
		`{"algorithm": "gradient"}`: 20,
	} {
		o := fromJSON(t, `{"limit": `+document+`}`)
		if got := newGate(t, 1, o).Stats().Limit; got != want {
			t.Errorf("%s: got a limit of %d, want %d", document, got, want)
		}
	}
}

func TestFromJSONQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 9, fromJSON(t, everyKey))
		reports, acme, other := admit.Call{Class: 4, Cost: 10}, admit.Call{Tenant: "acme", Cost: 500}, admit.Call{Tenant: "b", Cost: 100}
		for _, c := range []admit.Call{reports, acme, other} {
			passes(t, g, c)
		}
		reports.Cost, acme.Cost, other.Cost = 1, 1, 1
		overQuota(t, g, reports, 400*ms)
		overQuota(t, g, acme, 2*ms)
		overQuota(t, g, other, 20*ms)
		update(t, g, fromJSON(t, `{"quotas": {"tenant": {"rate": 1}, "tenants": {"acme": null}}}`))
		overQuota(t, g, reports, 400*ms)
		overQuota(t, g, other, time.Second)
		overQuota(t, g, acme, time.Second)
		update(t, g, fromJSON(t, `{"quotas": {"tenant": null}}`))
		passes(t, g, other)
		overQuota(t, g, reports, 400*ms)
		wantError(t, g.Update(fromJSON(t, "{\"quotas\":\n{\"classes\": {\"nightly\": {\"rate\": 3}}}}")), admit.ErrConfig,
			"line 2: quotas.classes.nightly: got a class that the gate does not have, want one of 1 (critical)")
		overQuota(t, g, reports, 400*ms)
		update(t, g, fromJSON(t, `{"quotas": null}`))
		passes(t, g, reports)
	})
}

const twoGates = `{"gates": [
  {"name": "write", "methods": ["/shop.Orders/Buy", "/shop.Orders/Cancel"], "limit": {"algorithm": "fixed", "limit": 20}},
  {"name": "feed", "methods": ["/shop.Feed/"], "streams": true, "limit": {"algorithm": "fixed", "limit": 5000}, "queue": null},
  {"name": "rest", "quotas": {"tenant": {"rate": 50}}}
]}`

func TestSectionsFromJSON(t *testing.T) {
	sections, err := admit.SectionsFromJSON([]byte(twoGates))
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, s := range sections {
		got += fmt.Sprintf("%s %q %v; ", s.Name, s.Methods, s.Streams)
	}
	if want := `write ["/shop.Orders/Buy" "/shop.Orders/Cancel"] false; feed ["/shop.Feed/"] true; rest [] false; `; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if sections[2].Methods != nil {
		t.Errorf("methods of the last: got %q, want nil", sections[2].Methods)
	}
	if got, want := sections[0].Where("methods[1]"), "line 2: gates[0].methods[1]"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for document, says := range map[string]string{
		`{}`:                        `line 1: got no "gates"`,
		`{"gates": {}}`:             "gates: got an object, want an array of gates",
		`{"gates": null}`:           "gates: got null",
		`{"gates": []}`:             "gates: got no gate, want one",
		`{"gates": [null]}`:         "gates[0]: got null, want an object",
		`{"gates": [{}]}`:           `gates[0]: got no "name"`,
		`{"gates": [{"name": ""}]}`: "gates[0].name: got an empty name",
		`{"gates": [{"name": 5}]}`:  "gates[0].name: got 5, want a text",
		`{"gate": []}`:              "gate: unknown key, want one of gates",
		"{\"gates\": [{\"name\": \"a\"},\n{\"name\": \"a\"}]}":                  `line 2: gates[1].name: got "a", the name of the gate on line 1, want one of its own`,
		`{"gates": [{"name": "a", "method": []}]}`:                              "gates[0].method: unknown key, want one of name, methods, streams, limit",
		`{"gates": [{"name": "a", "methods": "/a/b"}]}`:                         `gates[0].methods: got "/a/b", want an array of methods`,
		`{"gates": [{"name": "a", "methods": ["/a/b", 7]}]}`:                    "gates[0].methods[1]: got 7, want a text",
		`{"gates": [{"name": "a", "limit": {"min": 5, "max": 3}}, {"nam": 3}]}`: "gates[0].limit.max: got 3, want min (5)",
	} {
		_, err := admit.SectionsFromJSON([]byte(document))
		wantError(t, err, admit.ErrConfig, says)
	}
}

// A document changes the gates that it names, all of them or none.
func TestUpdateFromJSON(t *testing.T) {
	write, rest := newGate(t, 1, admit.WithName("write")), newGate(t, 2, admit.WithName("rest"))
	limits := func() string { return fmt.Sprint(write.Stats().Limit, rest.Stats().Limit) }
	if err := admit.UpdateFromJSON([]byte(`{"gates": [{"name": "rest", "limit": {"algorithm": "fixed", "limit": 7}}]}`), write, rest); err != nil {
		t.Fatal(err)
	}
	if got, want := limits(), "1 7"; got != want {
		t.Errorf("got limits of %s, want %s", got, want)
	}
	update(t, rest, admit.WithClassConfig(admit.Critical, admit.ClassConfig{Share: 0.9}))
	for document, says := range map[string]string{
		`{"gates": [{"name": "write", "limit": {}}, {"name": "more"}]}`:                                                            `gates[1]: got a gate "more", want one of those that there are`,
		`{"gates": [{"name": "write", "limit": {}}, {"name": "rest", "limit": {"initial": 0}}]}`:                                   "gates[1].limit.initial: got 0",
		"{\"gates\": [{\"name\": \"write\", \"limit\": {}},\n{\"name\": \"rest\", \"classes\": {\"default\": {\"share\": 0.2}}}]}": "line 2: gates[1]: classes: got shares of 1.1 together",
	} {
		wantError(t, admit.UpdateFromJSON([]byte(document), write, rest), admit.ErrConfig, says)
		if got, want := limits(), "1 7"; got != want {
			t.Errorf("after an error: got limits of %s, want %s", got, want)
		}
	}
}

// Whatever the document, there is an option that can be used, or an error that says what
// it got and wants.
func FuzzFromJSON(f *testing.F) {
	for _, d := range []string{everyKey, twoGates, `{"queue": null, "quotas": null}`, `{"limit": {"algorithm": "vegas", "alpha": 1e9}}`, "{\"a\": [1, {}, \"\\ud800\"]}"} {
		f.Add([]byte(d))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		o, err := admit.FromJSON(document)
		_, errSections := admit.SectionsFromJSON(document)
		for _, err := range []error{err, errSections} {
			if err != nil && (!errors.Is(err, admit.ErrConfig) || !strings.Contains(err.Error(), "document: line ") ||
				!strings.Contains(err.Error(), "want")) {
				t.Fatalf("%q: got %v, want what is wrong, and where", document, err)
			}
			if err == nil && !json.Valid(document) {
				t.Fatalf("%q: got no error, want one: it is no JSON", document)
			}
		}
		if err == nil {
			if g, err := admit.New(o); err == nil {
				_ = g.Update(o)
				p, _ := g.Acquire(t.Context(), admit.Call{Tenant: "acme", Class: 4})
				p.Release(admit.Success)
			}
		}
	})
}

// A document changes the keys that it has, and no others.
func TestFromJSONChangesWhatItNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(t, 4, fromJSON(t, `{
			"classes": {"background": {"max": 0.25}, "reports": {"class": 4}},
			"queue": {"capacity": 3, "max_wait": "1m", "policy": "reject"}
		}`))
		update(t, g, fromJSON(t, `{"classes": {"background": {"priority": 350}, "default": {"priority": 500}}, "queue": {"policy": "reject"}}`))
		if s := g.Stats(); s.QueueCapacity != 3 {
			t.Errorf("capacity: got %d, want 3 still", s.QueueCapacity)
		}
		if got := gateFuncs.Higher(g, admit.Critical, 4); got != 4 {
			t.Errorf("the higher of critical and reports, which is as default: got %v, want 4", got)
		}
		first, second := start(t.Context(), g, admit.Background), start(t.Context(), g, admit.Background)
		wantState(t, "a background call", first, runs)
		wantState(t, "another, beyond the bound", second, waits)
		time.Sleep(59 * time.Second)
		wantState(t, "it, almost a minute later", second, waits)
		time.Sleep(time.Second)
		wantState(t, "it, a minute later", second, tooLong)
	})
}
