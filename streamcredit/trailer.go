package streamcredit

import "google.golang.org/grpc/metadata"

// trailerOf returns the trailer of a client's stream, which has ended.
func trailerOf(stream any) metadata.MD {
	if t, ok := stream.(interface{ Trailer() metadata.MD }); ok {
		return t.Trailer()
	}
	return nil
}

// trailerSetterOf returns a function that sets a trailer on a server's stream, or nil if it
// cannot.
func trailerSetterOf(stream any) func(metadata.MD) {
	if t, ok := stream.(interface{ SetTrailer(md metadata.MD) }); ok {
		return t.SetTrailer
	}
	return nil
}

// last returns the last value, or an empty string if there is none.
func last(values []string) string {
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}
