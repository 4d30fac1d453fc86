package main

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/plugins"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// The committed dashboard is the one of the code.
func TestTheFileIsUpToDate(t *testing.T) {
	var want bytes.Buffer
	if err := write(&want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("weir.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("weir.json: got another dashboard than that of the code (cd ops && go run ./dashboard > dashboard/weir.json)")
	}
}

// Grafana knows every field, and would drop a field that it does not know without a word.
func TestTheFileIsADashboard(t *testing.T) {
	text, err := os.ReadFile("weir.json")
	if err != nil {
		t.Fatal(err)
	}
	plugins.RegisterDefaultPlugins() // so that queries and options of panels are checked as well
	if err := strict(text); err != nil {
		t.Errorf("weir.json: got %v, want a dashboard without unknown fields", err)
	}
	var d dashboard.Dashboard
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Errorf("weir.json: got %v, want valid values", err)
	}
	for _, field := range []string{`"panels"`, `"expr"`, `"showLegend"`} {
		misspelt := bytes.Replace(text, []byte(field), []byte(`"misspelt"`), 1)
		if err := strict(misspelt); err == nil {
			t.Errorf("a misspelt %s: got no error, want one", field)
		}
	}
}

// strict returns an error for a field that Grafana does not know. UnmarshalJSONStrict returns an empty list of errors
// for a dashboard without any.
func strict(text []byte) error {
	err := new(dashboard.Dashboard).UnmarshalJSONStrict(text)
	if list, ok := err.(cog.BuildErrors); ok && len(list) == 0 {
		return nil
	}
	return err
}

// Panels have a description, and no two have one title or one place.
func TestPanels(t *testing.T) {
	d, err := build()
	if err != nil {
		t.Fatal(err)
	}
	titles, places := map[string]bool{}, map[[2]uint32]string{}
	for _, p := range d.Panels {
		if p.Panel == nil {
			continue
		}
		title := *p.Panel.Title
		if titles[title] {
			t.Errorf("%s: got two panels of this title, want one", title)
		}
		titles[title] = true
		if p.Panel.Description == nil || *p.Panel.Description == "" {
			t.Errorf("%s: got no description, want one", title)
		}
		at := [2]uint32{p.Panel.GridPos.X, p.Panel.GridPos.Y}
		if other, taken := places[at]; taken {
			t.Errorf("%s: got the place of %s, want another", title, other)
		}
		places[at] = title
	}
	if want := 24; len(titles) != want {
		t.Errorf("panels: got %d, want %d", len(titles), want)
	}
}
