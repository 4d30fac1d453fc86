package debug

// Forget makes the next look take a new snapshot.
func Forget(h *Handler) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latest = nil
}
