package debug

import "time"

// Forget makes the next look take a new snapshot.
func Forget(h *Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latest = nil
}

// InWords returns a duration as the page says it.
func InWords(d time.Duration) string { return inWords(d) }
