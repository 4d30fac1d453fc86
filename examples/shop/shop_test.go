package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// All of it, shortened. What is compared are the two runs; figures for themselves are the
// demonstration's to print.
func TestDemonstration(t *testing.T) {
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "page.html")
	if err := demonstrate(t.Context(), &out, flags{duration: 2 * shortest, html: file, seed: 1}); err != nil {
		t.Fatalf("demonstrate: got %v, want no error", err)
	}
	kept, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, data, found := strings.Cut(string(kept), "const kept = ")
	if !found {
		t.Fatal("the page has no place for its data")
	}
	var parts []part
	if err := json.NewDecoder(strings.NewReader(data)).Decode(&parts); err != nil {
		t.Fatalf("data of the page: got %v, want JSON", err)
	}
	var reports []report
	samples := 0
	for _, p := range parts {
		reports, samples = append(reports, p.Reports...), samples+len(p.Samples)
	}
	if len(reports) != 2 || samples < 10 || !parts[len(parts)-1].Done {
		t.Fatalf("got %d reports and %d samples, done %v, want 2, some, true", len(reports), samples, parts[len(parts)-1].Done)
	}
	bare, weir := reports[0].slow(), reports[1].slow()
	if weir.Attempts >= 1.2 || bare.Attempts < 2*weir.Attempts {
		t.Errorf("attempts at payments for each call: got %.2f bare and %.2f with weir, want the latter under 1.2, and the former twice as many", bare.Attempts, weir.Attempts)
	}
	if weir.Buys < 2*bare.Buys {
		t.Errorf("buys while payments is slow: got %.2f of them bare and %.2f with weir, want twice as many", bare.Buys, weir.Buys)
	}
	if most, least := weir.Held[2], bare.Held[2]; most > least {
		t.Errorf("calls held by payments: got %d with weir and %d bare, want fewer", most, least)
	}
	for _, want := range []string{"payments, per call", "Nobody resets anything"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want it to say %q", &out, want)
		}
	}
}

// Every mistake is named at once.
func TestAllFlagsChecked(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "no", "page.html")
	_, err := parse([]string{"-duration", "1s", "-html", missing, "now"})
	if err == nil {
		t.Fatal("three mistakes: got no error, want all three named")
	}
	for _, want := range []string{"-duration: got 1s", `got argument "now"`, "-html: got a file that can't be written"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("three mistakes: got %q, want it to contain %q", err, want)
		}
	}
}
