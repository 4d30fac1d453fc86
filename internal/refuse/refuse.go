// Package refuse lets package weirtest make gates that refuse calls at will, without
// package admit offering that to programs.
package refuse

// Option returns an admit.Option. A gate with it asks next about every call, and refuses
// the call for the reason, an admit.Reason, if refuse is true. It calls next with its
// lock held. Package admit sets Option when it is initialized.
var Option func(next func() (reason uint8, refuse bool)) any
