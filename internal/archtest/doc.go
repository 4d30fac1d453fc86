// Package archtest holds no code, only tests of the tree as a whole: who may
// import whom, what the module may require, and what every public package owes
// to its readers. Each check has a second test, on made-up trees, which shows
// that the check fails when it should.
package archtest
