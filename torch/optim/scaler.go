package optim

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
)

// GradScaler scales a loss so that small gradients in float16 don't vanish (torch.amp.GradScaler;
// Micikevicius et al., 2017):
//
//	scaler.Scale(loss).Backward()
//	scaler.Unscale_(opt) // only if the gradients are looked at, for clipping
//	scaler.Step(opt)     // skips the step if a gradient is infinite or not a number
//	scaler.Update()
//
// The scale grows by GrowthFactor after GrowthInterval steps without an infinite gradient, and by
// BackoffFactor when there was one.
type GradScaler struct {
	enabled         bool
	growth, backoff float64
	interval        int
	firstScale      float64 // of what is made when the first loss tells the device
	firstTracker    int
	scale, tracker  *torch.Tensor
	optimizers      map[Optimizer]*scaled
}

// scaled is where an optimizer stands in an iteration.
type scaled struct {
	stage string          // "", "unscaled" or "stepped"
	found []*torch.Tensor // for each device: 1 if a gradient is not finite
}

// GradScalerOptions are the optional arguments of [NewGradScaler].
type GradScalerOptions struct {
	InitScale      torch.Opt[float64] // default 65536
	GrowthFactor   torch.Opt[float64] // default 2
	BackoffFactor  torch.Opt[float64] // default 0.5
	GrowthInterval torch.Opt[int]     // default 2000
	Enabled        torch.Opt[bool]    // default true; else Scale, Unscale_ and Update do nothing and Step only steps
}

// NewGradScaler makes a [GradScaler]. It works on the device of the first loss.
func NewGradScaler(opts ...GradScalerOptions) *GradScaler {
	o := opt1(opts)
	s := &GradScaler{enabled: o.Enabled.Or(true), growth: o.GrowthFactor.Or(2), backoff: o.BackoffFactor.Or(0.5),
		interval: o.GrowthInterval.Or(2000), firstScale: o.InitScale.Or(65536), optimizers: map[Optimizer]*scaled{}}
	if s.enabled && !(s.growth > 1) {
		fail("GradScaler", "The growth factor must be > 1.0.")
	}
	if s.enabled && !(s.backoff < 1) {
		fail("GradScaler", "The backoff factor must be < 1.0.")
	}
	return s
}

// Scale multiplies a loss by the scale.
func (s *GradScaler) Scale(loss *torch.Tensor) *torch.Tensor {
	if !s.enabled {
		return loss
	}
	if s.scale == nil {
		s.scale = torch.Full([]int{}, s.firstScale, torch.TensorOptions{DType: torch.Float32, Device: loss.Device()})
		s.tracker = torch.Full([]int{}, s.firstTracker, torch.TensorOptions{DType: torch.Int32, Device: loss.Device()})
		torch.Keep(s.scale, s.tracker)
	}
	return loss.Mul(s.scale.To(loss.Device(), torch.NonBlocking()))
}

// of is the state of an optimizer in this iteration.
func (s *GradScaler) of(opt Optimizer, what string) *scaled {
	if s.scale == nil {
		s.wrong("Attempted %s but _scale is None.  This may indicate your script did not use scaler.scale(loss or outputs) earlier in the iteration.", what)
	}
	state := s.optimizers[opt]
	if state == nil {
		state = &scaled{}
		s.optimizers[opt] = state
	}
	return state
}

func (s *GradScaler) wrong(format string, args ...any) {
	panic(&torch.Error{Op: "GradScaler", Kind: torch.ErrRuntime, Message: fmt.Sprintf(format, args...)})
}

// Unscale_ divides the gradients of an optimizer's parameters by the scale and notes whether one of them is
// infinite or not a number.
func (s *GradScaler) Unscale_(opt Optimizer) {
	if !s.enabled {
		return
	}
	state := s.of(opt, "unscale_")
	switch state.stage {
	case "unscaled":
		s.wrong("unscale_() has already been called on this optimizer since the last update().")
	case "stepped":
		s.wrong("unscale_() is being called after step().")
	}
	torch.Scope(func() {
		torch.NoGrad(func() {
			inverse := s.scale.ToDType(torch.Float64).Reciprocal().ToDType(torch.Float32)
			type kind struct {
				device torch.Device
				dtype  torch.DType
			}
			found, lists := map[torch.Device]*torch.Tensor{}, map[kind][]*torch.Tensor{}
			var order []kind
			for _, g := range opt.Groups() {
				for _, grad := range grads(g.Params) {
					if grad == nil {
						continue
					}
					if grad.DType() == torch.Float16 {
						fail("GradScaler", "Attempting to unscale FP16 gradients.")
					}
					if grad.Layout() != torch.Strided {
						grad = torch.Internal.Values(grad)
					}
					k := kind{grad.Device(), grad.DType()}
					if lists[k] == nil {
						order = append(order, k)
					}
					lists[k] = append(lists[k], grad)
				}
			}
			for _, k := range order {
				if found[k.device] == nil {
					found[k.device] = torch.Zeros([]int{}, torch.TensorOptions{DType: torch.Float32, Device: k.device})
					torch.Keep(found[k.device])
					state.found = append(state.found, found[k.device])
				}
				torch.Internal.AmpForeachNonFiniteCheckAndUnscale_(lists[k], found[k.device], inverse.To(k.device))
			}
		})
	})
	state.stage = "unscaled"
}

// Step unscales the gradients, unless Unscale_ has, and makes the optimizer's step if they are all finite.
func (s *GradScaler) Step(opt Optimizer) {
	if !s.enabled {
		opt.Step()
		return
	}
	state := s.of(opt, "step")
	switch state.stage {
	case "stepped":
		s.wrong("step() has already been called since the last update().")
	case "":
		s.Unscale_(opt)
	}
	if len(state.found) == 0 {
		s.wrong("No inf checks were recorded for this optimizer.")
	}
	finite := true
	for _, f := range state.found {
		finite = finite && torch.Item[float32](f) == 0
	}
	if finite {
		opt.Step()
	}
	state.stage = "stepped"
}

// Update changes the scale after an iteration.
func (s *GradScaler) Update() {
	if !s.enabled {
		return
	}
	if s.scale == nil {
		s.of(nil, "update")
	}
	torch.Scope(func() {
		torch.NoGrad(func() {
			var total *torch.Tensor
			for _, state := range s.optimizers {
				for _, f := range state.found {
					if f = f.To(s.scale.Device()); total == nil {
						total = f
					} else {
						total = total.Add(f)
					}
				}
			}
			if total == nil {
				s.wrong("No inf checks were recorded prior to update.")
			}
			torch.Internal.AmpUpdateScale_(s.scale, s.tracker, total, s.growth, s.backoff, s.interval)
		})
	})
	s.forget()
}

func (s *GradScaler) forget() {
	for _, state := range s.optimizers {
		for _, f := range state.found {
			f.Close()
		}
	}
	clear(s.optimizers)
}

// SetScale changes the scale in place of Update.
func (s *GradScaler) SetScale(scale float64) {
	if !s.enabled {
		return
	}
	s.firstScale = scale
	if s.scale != nil {
		torch.NoGrad(func() { s.scale.Fill_(scale) })
	}
	s.forget()
}

// GetScale is the scale; 1 if the scaler is not enabled.
func (s *GradScaler) GetScale() float64 {
	switch {
	case !s.enabled:
		return 1
	case s.scale == nil:
		return s.firstScale
	}
	return torch.Item[float64](s.scale)
}

// Enabled tells whether the scaler does anything.
func (s *GradScaler) Enabled() bool { return s.enabled }

// StateDict is the state under PyTorch's names; empty if the scaler is not enabled.
func (s *GradScaler) StateDict() map[string]any {
	if !s.enabled {
		return map[string]any{}
	}
	tracker := s.firstTracker
	if s.tracker != nil {
		tracker = torch.Item[int](s.tracker)
	}
	return map[string]any{"scale": s.GetScale(), "growth_factor": s.growth, "backoff_factor": s.backoff,
		"growth_interval": s.interval, "_growth_tracker": tracker}
}

// LoadStateDict takes over what StateDict, or PyTorch by way of JSON, has made.
func (s *GradScaler) LoadStateDict(state map[string]any) error {
	if !s.enabled {
		return nil
	}
	if len(state) == 0 {
		return fmt.Errorf("load state dict: The source state dict is empty, possibly because it was saved from a disabled instance of GradScaler")
	}
	scale, tracker := s.firstScale, s.firstTracker
	table := []option{{"scale", &scale, nil}, {"growth_factor", &s.growth, nil}, {"backoff_factor", &s.backoff, nil},
		{"growth_interval", &s.interval, nil}, {"_growth_tracker", &tracker, nil}}
	for _, o := range table {
		if _, ok := state[o.key]; !ok {
			return fmt.Errorf("load state dict: GradScaler: %s: the entry is missing", o.key)
		}
	}
	if err := loadValues("GradScaler", table, state, 0); err != nil {
		return err
	}
	s.firstScale, s.firstTracker = scale, tracker
	if s.scale != nil {
		torch.NoGrad(func() {
			s.scale.Fill_(scale)
			s.tracker.Fill_(tracker)
		})
	}
	return nil
}

// Close frees the scale.
func (s *GradScaler) Close() {
	s.forget()
	s.scale.Close()
	s.tracker.Close()
}
