package memory

import "google.golang.org/grpc/encoding"

// Hold makes b hold n messages of one byte each.
func Hold(b *Bytes, n int64) *Bytes {
	b.messages.Store(n)
	b.counts.Store(n)
	return b
}

// Sending returns how many messages of b are between encoding and sending.
func Sending(b *Bytes) int {
	b.sending.mu.Lock()
	defer b.sending.mu.Unlock()
	return len(b.sending.parcels)
}

// Counting returns the codec that counts responses, around a registered codec.
func Counting(b *Bytes, codec string) encoding.CodecV2 { return departures{codecOf(codec), b} }
