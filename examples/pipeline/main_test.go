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

func TestTheSourceMakesWhatTheWorkerAsksFor(t *testing.T) {
	var out bytes.Buffer
	s := settings{phase: 300 * time.Millisecond, window: 4}
	if err := show(t.Context(), &out, s); err != nil {
		t.Fatalf("show = %v, want no error; output:\n%s", err, &out)
	}
	text := out.String()
	var made, done, answers, ahead int
	_, end, _ := strings.Cut(text, "\n\n")
	_, end, _ = strings.Cut(end, "\n\n")
	if _, err := fmt.Sscanf(end, "%d jobs made, %d done, %d answers. The source never was more than %d jobs ahead",
		&made, &done, &answers, &ahead); err != nil {
		t.Fatalf("output = %q: %v", text, err)
	}
	if made == 0 || made != done || done != answers {
		t.Errorf("made %d, done %d, answers %d; want the same, and some", made, done, answers)
	}
	// Besides what the worker asked for, one that is being done and one that is being made.
	if limit := s.window + 2; ahead > limit {
		t.Errorf("the source was %d jobs ahead of the worker, want at most %d", ahead, limit)
	}
}
