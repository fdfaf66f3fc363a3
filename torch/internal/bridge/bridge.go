// Package bridge lends packages below torch what torch does not export. Package torch fills it when it
// is imported.
package bridge

var (
	// Load opens libtorch on behalf of an operator; it panics with a *torch.Error.
	Load func(op string)
	// Must panics with a *torch.Error if err, which package cgo returned, is not nil.
	Must func(op string, err error)
)
