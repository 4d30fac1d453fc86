// Package archtest has tests of the whole tree. They check the imports of packages, the
// requirements of the module, the documentation of public packages, and how prose is
// written. Each check has a second test on made-up trees, which shows that the check fails
// when it should.
package archtest
