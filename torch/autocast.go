package torch

import "github.com/torchgo/torchgo/cgo"

// AutocastOptions are the options of [Autocast].
type AutocastOptions struct {
	DType        DType     // to compute in, Float16 or BFloat16; default: the device's, bfloat16 on the CPU, float16 on a GPU
	Enabled      Opt[bool] // default true; false ends autocast for fn, inside another one
	CacheEnabled Opt[bool] // keep the casts of parameters, default as it is outside (true)
}

// Autocast runs fn with operators of a kind of device in mixed precision (torch.autocast): matrix
// products and convolutions of float32 tensors compute in DType, operators that lose too much there
// (losses, norms, exp, …; which ones is the device's list) in float32, and those with several tensors
// in the widest type among them. Parameters keep their own dtype and gradients have theirs.
//
// A parameter is cast once: the cast is kept until the outermost Autocast of the thread ends. Run the
// backward pass after it, not in it.
//
// It is for the forward pass and its loss, nests, and opens no scope. Autocast for CUDA has no effect on
// the CPU's tensors, and may be asked for on a machine without a GPU: use [Device].Type for one code.
func Autocast(device DeviceType, opts AutocastOptions, fn func()) {
	const op = "autocast"
	kind := device.c10(op)
	dtype, cache := -1, -1
	if opts.DType != 0 {
		dtype = int(opts.DType) - 1
	}
	if on, given := opts.CacheEnabled.Get(); given {
		cache = 0
		if on {
			cache = 1
		}
	}
	inMode(op, func() (cgo.Guard, error) {
		return cgo.AutocastEnter(kind, opts.Enabled.Or(true), dtype, cache)
	}, fn)
}

// AutocastEnabled tells whether operators of a kind of device are in mixed precision here.
func AutocastEnabled(device DeviceType) bool {
	on, _, _ := autocast(device)
	return on
}

// AutocastDType is what mixed precision computes in here, or would (torch.get_autocast_dtype).
func AutocastDType(device DeviceType) DType {
	_, dtype, _ := autocast(device)
	return dtype
}

// AutocastCacheEnabled tells whether the casts of parameters are kept here.
func AutocastCacheEnabled() bool {
	_, _, cache := autocast(DeviceCPU)
	return cache
}

func autocast(device DeviceType) (on bool, dtype DType, cache bool) {
	const op = "autocast"
	load(op)
	on, n, cache, err := cgo.Autocast(device.c10(op))
	must(op, err)
	return on, DType(n + 1), cache
}
