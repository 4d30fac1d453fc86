package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheUploadEndsWithEverythingStored(t *testing.T) {
	var out bytes.Buffer
	if err := show(t.Context(), &out, settings{phase: 200 * time.Millisecond, window: 4, bytes: 1 << 10}); err != nil {
		t.Fatalf("show = %v, want no error; output:\n%s", err, &out)
	}
	text := out.String()
	if strings.Count(text, "\nfast ") != 2 || strings.Count(text, "\nslow ") != 1 {
		t.Errorf("output = %q, want a row for each phase", text)
	}
	var produced, stored, confirmed int
	_, end, _ := strings.Cut(text, "Finish: ")
	if _, err := fmt.Sscanf(end, "<nil>, with %d parts produced, %d stored and %d confirmed", &produced, &stored, &confirmed); err != nil {
		t.Fatalf("output = %q: %v", text, err)
	}
	if produced == 0 || produced != stored || stored != confirmed {
		t.Errorf("produced %d, stored %d, confirmed %d; want the same, and some", produced, stored, confirmed)
	}
}
