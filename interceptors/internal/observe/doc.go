// Package observe reports what becomes of a client's stream.
package observe
