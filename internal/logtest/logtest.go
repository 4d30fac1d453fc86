// Package logtest keeps the lines of loggers and programs in tests.
package logtest

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
)

// A Book keeps the text that is written to it. The zero Book is empty. It is safe for
// concurrent use.
type Book struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

// Write adds p. It never fails.
func (b *Book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

// String returns the text since the last Take.
func (b *Book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// Take returns the text since the last Take, without space around it, and forgets it.
func (b *Book) Take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.text.Reset()
	return strings.TrimSpace(b.text.String())
}

// Logger returns a logger that writes lines of text without times to the book.
func (b *Book) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}
