// Package calltest holds the helpers that the tests of the interceptors share. They are a
// scriptable service, gates, callers, a fleet of servers, and checks of errors.
//
// All of it works in a testing/synctest bubble.
package calltest
