// Package demopb is the generated code of the service that the examples and
// the tests call; examples/proto/weir/demo/v1/demo.proto says what it does.
package demopb
