// Package abuse calls every function of the shim's table with bad arguments, for tests. Its calls
// are generated from torchgo.h; abuse.c has the values and what must hold after each call.
package abuse

//go:generate go run ../../../tools/genabuse -root ../../..
