// Package calltest holds what the tests of the interceptors share: a service that does what
// a test wants, gates, callers, a fleet of servers, and checks of errors.
//
// All of it works in a testing/synctest bubble.
package calltest
