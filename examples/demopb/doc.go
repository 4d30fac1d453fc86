// Package demopb is the generated code of the service that the examples and
// the tests call. See examples/proto/weir/demo/v1/demo.proto.
package demopb
