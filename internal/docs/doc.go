// Package docs has the tests of the documents: README.md, DESIGN.md, CONTRIBUTING.md, docs/, the pages of the
// runbook, and those of the brokers' modules.
//
// A Go block in a document is a whole program, which must compile as it stands, or it is copied from the
// tree and must be up to date. A comment in the line before the block names the origin:
//
//	<!-- example: interceptors/example_test.go ExampleShutdown -->
//	<!-- functions: examples/recipes/readme_test.go dial work -->
//
// The first stands for the body of an example, the second for whole functions and for methods (Type.Method).
// go test ./internal/docs -update copies them into the documents. Other libraries' code follows the comment
// <!-- not weir's --> and is not checked. Blocks of other languages are read or run as well, here or in ops.
package docs
