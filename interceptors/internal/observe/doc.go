// Package observe reports the answer and the end of a client's stream.
package observe
