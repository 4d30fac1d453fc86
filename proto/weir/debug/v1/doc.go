// Package debugpb is the generated code of the service that shows the state of weir in a process.
// Package debug serves it.
package debugpb
