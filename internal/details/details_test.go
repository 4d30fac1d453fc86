package details_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-go/weir/internal/details"
)

func reason(domain, reason string) *anypb.Any {
	return packed(&errdetails.ErrorInfo{Domain: domain, Reason: reason, Metadata: map[string]string{"gate": reason}})
}

func delay(seconds int64, nanos int32) *anypb.Any {
	return packed(&errdetails.RetryInfo{RetryDelay: &durationpb.Duration{Seconds: seconds, Nanos: nanos}})
}

func packed(m proto.Message) *anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		panic(err)
	}
	return a
}

func TestOf(t *testing.T) {
	other := packed(&errdetails.BadRequest{})
	broken := func(m proto.Message) *anypb.Any {
		a := packed(m)
		a.Value = []byte{0xff}
		return a
	}
	for name, c := range map[string]struct {
		details []*anypb.Any
		reason  string
		delay   time.Duration
	}{
		"nothing":                  {nil, "", 0},
		"a refusal":                {[]*anypb.Any{reason("weir", "QUEUE_FULL"), delay(1, 5)}, "QUEUE_FULL", time.Second + 5},
		"delay first":              {[]*anypb.Any{delay(2, 0), other, reason("weir", "A1")}, "A1", 2 * time.Second},
		"a delay alone":            {[]*anypb.Any{delay(3, 0)}, "", 3 * time.Second},
		"another domain":           {[]*anypb.Any{reason("example.com", "QUEUE_FULL"), delay(1, 0)}, "", time.Second},
		"another domain first":     {[]*anypb.Any{reason("example.com", "A"), reason("weir", "B")}, "B", 0},
		"two reasons":              {[]*anypb.Any{reason("weir", "A"), reason("weir", "B")}, "A", 0},
		"two delays":               {[]*anypb.Any{delay(1, 0), delay(2, 0)}, "", 2 * time.Second},
		"no reason":                {[]*anypb.Any{reason("weir", "")}, "", 0},
		"lower case":               {[]*anypb.Any{reason("weir", "queue_full")}, "", 0},
		"inner space":              {[]*anypb.Any{reason("weir", "A B")}, "", 0},
		"longest reason":           {[]*anypb.Any{reason("weir", strings.Repeat("A", 64))}, strings.Repeat("A", 64), 0},
		"reason too long":          {[]*anypb.Any{reason("weir", strings.Repeat("A", 65))}, "", 0},
		"negative delay":           {[]*anypb.Any{delay(-1, 0)}, "", 0},
		"invalid delay":            {[]*anypb.Any{delay(1, -1)}, "", 0},
		"delay beyond all bounds":  {[]*anypb.Any{delay(math.MaxInt64, 0)}, "", 0}, // not valid
		"100 years":                {[]*anypb.Any{delay(100*365*24*3600, 0)}, "", time.Hour},
		"no delay in it":           {[]*anypb.Any{packed(&errdetails.RetryInfo{})}, "", 0},
		"broken":                   {[]*anypb.Any{broken(&errdetails.ErrorInfo{}), broken(&errdetails.RetryInfo{}), reason("weir", "A")}, "A", 0},
		"empty any":                {[]*anypb.Any{nil, {}, reason("weir", "A")}, "A", 0},
		"the last that is read":    {append(slices.Repeat([]*anypb.Any{other}, 15), reason("weir", "A")), "A", 0},
		"after the last":           {append(slices.Repeat([]*anypb.Any{other}, 16), reason("weir", "A")), "", 0},
		"many after it":            {append([]*anypb.Any{reason("weir", "A")}, slices.Repeat([]*anypb.Any{other}, 1000)...), "A", 0},
		"reason with inner letter": {[]*anypb.Any{reason("weir", "AäB")}, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := details.Of(&spb.Status{Details: c.details})
			if got.Reason != c.reason || got.RetryAfter != c.delay {
				t.Errorf("Of: got reason %q and delay %v, want %q and %v", got.Reason, got.RetryAfter, c.reason, c.delay)
			}
			if got.Metadata["gate"] != c.reason {
				t.Errorf("Of: got metadata %q, want those of %q", got.Metadata, c.reason)
			}
		})
	}
	if got := details.Of(nil); got.Reason != "" || got.RetryAfter != 0 {
		t.Errorf("Of(nil): got %+v, want nothing", got)
	}
}

func TestTree(t *testing.T) {
	a, b, c := errors.New("a"), errors.New("b"), errors.New("c")
	inner := fmt.Errorf("inner: %w", b)
	outer := errors.Join(a, inner, c)
	all := slices.Collect(details.Tree(outer))
	if want := []error{outer, a, inner, b, c}; !slices.Equal(all, want) {
		t.Errorf("Tree: got %q, want %q", all, want)
	}
	for e := range details.Tree(outer) {
		if e == b {
			break // must end the walk
		}
	}
	for e := range details.Tree(nil) {
		t.Errorf("Tree(nil): got %v, want nothing", e)
	}
}
