// Package peers counts the calls of a client by the address that they went to.
package peers
