// Package statustext recognizes statuses that gRPC itself makes, by their text. Nothing else
// tells them from a server's own statuses with the same codes.
package statustext

import "strings"

// TooLarge reports whether a RESOURCE_EXHAUSTED says that a message is too large, and not
// that something is used up.
func TooLarge(message string) bool { return containsAny(message, tooLarge) }

// Unconnected reports whether gRPC made an UNAVAILABLE because it had no connection. The
// call never reached a server.
func Unconnected(message string) bool { return containsAny(message, unconnected) }

var (
	tooLarge = []string{
		"message larger than max", // of grpc-go, C-core and grpc-js
		"after decompression larger than max",
		"message exceeds maximum size", // of grpc-java
	}
	unconnected = []string{
		"connection error: desc =",
		"name resolver error:",
		"name resolver produced",
	}
)

func containsAny(message string, texts []string) bool {
	for _, text := range texts {
		if strings.Contains(message, text) {
			return true
		}
	}
	return false
}
