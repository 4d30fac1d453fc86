package metrics_test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/weir-go/weir/examples/demopb"
	"github.com/weir-go/weir/streamcredit"
)

// reasonsOf returns the constants of type Reason in a file.
func reasonsOf(t *testing.T, file string) (reasons []string) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if is, ok := spec.Type.(*ast.Ident); !ok || is.Name != "Reason" {
			return true
		}
		for _, v := range spec.Values {
			s, err := strconv.Unquote(v.(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			reasons = append(reasons, s)
		}
		return true
	})
	return reasons
}

func TestEveryReasonOfAViolationHasASeries(t *testing.T) {
	files, err := filepath.Glob("../streamcredit/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, f := range files {
		for _, why := range reasonsOf(t, f) {
			want = append(want, strings.ToLower(why))
		}
	}
	r := collectStreams(t, streamcredit.NewMeter("feed"))
	for _, s := range find(t, r, "weir_stream_violations_total", "feed") {
		got = append(got, s.labels[1]) // after meter
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 16 || !slices.Equal(got, want) {
		t.Errorf("reasons: got %q, want %q, which are at least 16", got, want)
	}
}

// odd is a stream that ends with an error of its own.
type odd struct {
	ctx context.Context
	err error
}

func (s odd) Send(*demopb.UploadResponse) error    { return nil }
func (s odd) Recv() (*demopb.UploadRequest, error) { return nil, s.err }
func (s odd) Context() context.Context             { return s.ctx }

// Whatever streams end with, no series appears that was not there at first.
func TestNothingThatStreamsBringBecomesALabel(t *testing.T) {
	m := streamcredit.NewMeter("feed")
	r := collectStreams(t, m)
	before := seriesOf(t, r)
	for _, why := range []streamcredit.Reason{"", "/evil.Service/\n\"", "\xff", "UNKNOWN", streamcredit.CreditExceeded} {
		err := &streamcredit.ProtocolError{Reason: why}
		stream := odd{ctx: t.Context(), err: err}
		if _, _, got := streamcredit.ServeReceive(stream, streamcredit.WithMeter(m)); got != error(err) {
			t.Fatalf("ServeReceive: got %v, want %v", got, err)
		}
	}
	if after := seriesOf(t, r); !slices.Equal(after, before) {
		t.Errorf("series: got %d\n%s\nwant the same %d as at first", len(after), strings.Join(after, "\n"), len(before))
	}
	if got := count(t, r, "weir_stream_violations_total"); got != 1 {
		t.Errorf("violations: got %v, want 1, for the one reason that is known", got)
	}
}
