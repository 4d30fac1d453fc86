package memory_test

import "github.com/weir-go/weir/interceptors/internal/calltest"

const blobs = calltest.Blobs

type blob = calltest.Blob

var (
	newGate       = calltest.NewGate
	wantCode      = calltest.WantCode
	serveBlobs    = calltest.ServeBlobs
	askAndNotRead = calltest.AskAndNotRead
)
