// Package recipes has the examples of README.md and docs/. Each is a test, and stands in the documents as it
// stands here.
package recipes
