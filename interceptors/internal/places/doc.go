// Package places keeps a value for each method of each target, within bounds.
package places
