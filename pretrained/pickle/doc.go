// Package pickle reads and writes PyTorch's own checkpoint files (.bin, .pt, .pth), which are pickles, as data.
//
// A pickle is a program that builds objects. This package interprets it with an allow-list of opcodes and of
// names, builds no object and calls no function: what it doesn't know is refused, or kept as an [Opaque] value.
// There is no path from a file to the execution of code.
package pickle
