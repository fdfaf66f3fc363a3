package cuda

import "github.com/torchgo/torchgo/torch"

// RNGState is the state of a device's default generator, a uint8 tensor on the CPU (torch.cuda.get_rng_state).
func RNGState(device torch.Device) *torch.Tensor {
	return torch.DefaultGenerator(named("get_rng_state", device)).State()
}

// SetRNGState restores what [RNGState] returned.
func SetRNGState(state *torch.Tensor, device torch.Device) {
	torch.DefaultGenerator(named("set_rng_state", device)).SetState(state)
}

// RNGStates are the states of all devices (torch.cuda.get_rng_state_all); none without a GPU.
func RNGStates() []*torch.Tensor {
	states := make([]*torch.Tensor, DeviceCount())
	for i := range states {
		states[i] = RNGState(torch.CUDA(i))
	}
	return states
}

// SetRNGStates restores what [RNGStates] returned.
func SetRNGStates(states []*torch.Tensor) {
	for i, s := range states {
		SetRNGState(s, torch.CUDA(i))
	}
}

// ManualSeed seeds a device's default generator. ([torch.ManualSeed] seeds those of all devices and the CPU.)
func ManualSeed(seed uint64, device torch.Device) {
	torch.DefaultGenerator(named("manual_seed", device)).ManualSeed(seed)
}

// ManualSeedAll seeds the default generators of all devices; it does nothing without a GPU.
func ManualSeedAll(seed uint64) {
	for i := range DeviceCount() {
		ManualSeed(seed, torch.CUDA(i))
	}
}
