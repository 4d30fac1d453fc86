package admit_test

import (
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
  "dry_run": false
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

func TestFromJSONSaysWhatIsWrong(t *testing.T) {
	for document, says := range map[string]string{
		``:                                "got nothing, want an object",
		`{"Limit": {}}`:                   `unknown field "Limit", want "limit"`,
		`{"queue": {"POLICY": "reject"}}`: `unknown field "POLICY"`,
		`{"classes": {"classes": {"class": 4, "Priority": 5}}}`: `unknown field "Priority"`,
		`{"dry_run": true, "dry_run": false}`:                   `got "dry_run" twice`,
		`{"classes": {"critical": {}, "critical": {}}}`:         `got "critical" twice`,
		`[]`:                        "cannot unmarshal array",
		`{} {}`:                     "got something after the object",
		`{"limits": {}}`:            `unknown field "limits"`,
		`{"limit": {"minimum": 1}}`: `unknown field "minimum"`,
		`{"queue": {"size": 1}}`:    `queue: unknown field "size"`,
		`{"classes": {"critical": {"weight": 1}}}`:         `unknown field "weight"`,
		`{"limit": {"algorithm": "vegas"}}`:                `got "vegas", want adaptive or fixed`,
		`{"limit": {"limit": 5}}`:                          `got "limit" of an adaptive one`,
		`{"limit": {"algorithm": "fixed", "max": 5}}`:      `got bounds of a fixed limit`,
		`{"limit": {"algorithm": "fixed", "limit": -5}}`:   "got -5",
		`{"limit": {"min": 9, "max": 3}}`:                  "Max: got 3",
		`{"queue": {"max_wait": "soon"}}`:                  `max_wait: got "soon"`,
		`{"queue": {"policy": "drop"}}`:                    `policy: got "drop", want one of reject, block`,
		`{"queue": {"order": "fifo"}}`:                     `unknown field "order"`,
		`{"queue": {"capacity": "many"}}`:                  "cannot unmarshal string",
		`{"classes": {"checkout": {"share": 0.1}}}`:        "classes: checkout: got a class that is not one of the first four",
		`{"classes": {"critical": {"class": 3}}}`:          "classes: critical: got class 3, want 1 or nothing",
		`{"classes": {"checkout": {"class": 300}}}`:        "cannot unmarshal number 300",
		`{"queue": {"policy": "a"}, "limit": {"limit":1}}`: `policy: got "a"`,
		`null`:                            "document: got null",
		`{"limit": null}`:                 "limit: got null",
		`{"dry_run": null}`:               "dry_run: got null",
		`{"classes": {"critical": null}}`: "critical: got null",
		`{"classes": {"critical": {"share": null}}}`:          "share: got null",
		`{"queue": {"policy": null}}`:                         "policy: got null",
		`{"queue": {"policy": ""}}`:                           `policy: got "", want one of`,
		`{"classes": {"checkout": {"class": 8}}}`:             "classes: checkout: got class 8, want less than 8",
		`{"classes": {"a": {"class": 4}, "b": {"class": 4}}}`: "classes: b: got class 4, as a has, want one of its own",
	} {
		_, err := admit.FromJSON([]byte(document))
		wantError(t, err, admit.ErrConfig, says)
	}
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
		if got := g.Higher(admit.Critical, 4); got != 4 {
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
