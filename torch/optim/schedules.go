package optim

import (
	"math"
	"slices"
	"sort"

	"github.com/torchgo/torchgo/torch"
)

// opt1 is the one value of optional arguments, or the zero value.
func opt1[T any](opts []T) (o T) {
	if len(opts) > 0 {
		o = opts[0]
	}
	return o
}

// NewLambdaLR makes the schedule γ = γ₀ f(e) (torch.optim.lr_scheduler.LambdaLR), with a function for all
// groups or one for each.
func NewLambdaLR(opt Optimizer, lambda ...func(epoch int) float64) *LRScheduler {
	fs := perGroup("LambdaLR", opt, lambda)
	return newScheduler("LambdaLR", opt, formula{
		lr: func(s *LRScheduler, i int, _ float64) float64 { return s.base[i] * fs[i](s.epoch) },
	})
}

// NewMultiplicativeLR makes the schedule γ ← γ f(e) (torch.optim.lr_scheduler.MultiplicativeLR), with a
// function for all groups or one for each.
func NewMultiplicativeLR(opt Optimizer, lambda ...func(epoch int) float64) *LRScheduler {
	fs := perGroup("MultiplicativeLR", opt, lambda)
	return newScheduler("MultiplicativeLR", opt, formula{
		lr: func(s *LRScheduler, i int, now float64) float64 {
			if s.initial {
				return now
			}
			return now * fs[i](s.epoch)
		},
	})
}

func perGroup(name string, opt Optimizer, fs []func(int) float64) []func(int) float64 {
	n := len(opt.Groups())
	if len(fs) == 1 {
		return slices.Repeat(fs, n)
	}
	if len(fs) != n {
		fail(name, "Expected %d lr_lambdas, but got %d", n, len(fs))
	}
	return fs
}

// StepLROptions are the optional arguments of [NewStepLR].
type StepLROptions struct {
	Gamma torch.Opt[float64] // default 0.1
}

// NewStepLR multiplies the learning rate by Gamma every stepSize steps (torch.optim.lr_scheduler.StepLR):
// γ₀ Gamma^⌊e/stepSize⌋.
func NewStepLR(opt Optimizer, stepSize int, opts ...StepLROptions) *LRScheduler {
	gamma := opt1(opts).Gamma.Or(0.1)
	if stepSize <= 0 {
		fail("StepLR", "Expected positive step size, but got %d", stepSize)
	}
	return newScheduler("StepLR", opt, formula{
		table: []option{{"step_size", &stepSize, nil}, {"gamma", &gamma, nil}},
		lr: func(s *LRScheduler, _ int, now float64) float64 {
			if s.epoch == 0 || s.epoch%stepSize != 0 {
				return now
			}
			return now * gamma
		},
		closed: func(s *LRScheduler, i int) float64 { return s.base[i] * pow(gamma, float64(s.epoch/stepSize)) },
	})
}

// MultiStepLROptions are the optional arguments of [NewMultiStepLR].
type MultiStepLROptions struct {
	Gamma torch.Opt[float64] // default 0.1
}

// NewMultiStepLR multiplies the learning rate by Gamma at each milestone
// (torch.optim.lr_scheduler.MultiStepLR). The milestones are no part of its state dict.
func NewMultiStepLR(opt Optimizer, milestones []int, opts ...MultiStepLROptions) *LRScheduler {
	gamma := opt1(opts).Gamma.Or(0.1)
	sorted := slices.Sorted(slices.Values(milestones))
	return newScheduler("MultiStepLR", opt, formula{
		table: []option{{"gamma", &gamma, nil}},
		lr: func(s *LRScheduler, _ int, now float64) float64 {
			times := sort.SearchInts(sorted, s.epoch+1) - sort.SearchInts(sorted, s.epoch)
			if times == 0 {
				return now
			}
			return now * pow(gamma, float64(times))
		},
		closed: func(s *LRScheduler, i int) float64 {
			return s.base[i] * pow(gamma, float64(sort.SearchInts(sorted, s.epoch+1)))
		},
	})
}

// ConstantLROptions are the optional arguments of [NewConstantLR].
type ConstantLROptions struct {
	Factor     torch.Opt[float64] // default 1/3
	TotalIters torch.Opt[int]     // default 5
}

// NewConstantLR multiplies the learning rate by Factor for the first TotalIters steps
// (torch.optim.lr_scheduler.ConstantLR).
func NewConstantLR(opt Optimizer, opts ...ConstantLROptions) *LRScheduler {
	o := opt1(opts)
	factor, total := o.Factor.Or(1.0/3), o.TotalIters.Or(5)
	if !(factor >= 0 && factor <= 1) {
		fail("ConstantLR", "Constant multiplicative factor expected to be between 0 and 1.")
	}
	return newScheduler("ConstantLR", opt, formula{
		table: []option{{"factor", &factor, nil}, {"total_iters", &total, nil}},
		lr: func(s *LRScheduler, _ int, now float64) float64 {
			switch s.epoch {
			case 0:
				return now * factor
			case total:
				return now * (1 / factor)
			}
			return now
		},
		closed: func(s *LRScheduler, i int) float64 {
			if s.epoch >= total {
				return s.base[i] * (factor + (1 - factor))
			}
			return s.base[i] * factor
		},
	})
}

// LinearLROptions are the optional arguments of [NewLinearLR].
type LinearLROptions struct {
	StartFactor torch.Opt[float64] // default 1/3
	EndFactor   torch.Opt[float64] // default 1
	TotalIters  torch.Opt[int]     // default 5
}

// NewLinearLR goes from γ₀ StartFactor to γ₀ EndFactor in TotalIters steps, on a line
// (torch.optim.lr_scheduler.LinearLR).
func NewLinearLR(opt Optimizer, opts ...LinearLROptions) *LRScheduler {
	o := opt1(opts)
	start, end, total := o.StartFactor.Or(1.0/3), o.EndFactor.Or(1), o.TotalIters.Or(5)
	if !(start > 0 && start <= 1) {
		fail("LinearLR", "Starting multiplicative factor expected to be greater than 0 and less or equal to 1.")
	}
	if !(end >= 0 && end <= 1) {
		fail("LinearLR", "Ending multiplicative factor expected to be between 0 and 1.")
	}
	return newScheduler("LinearLR", opt, formula{
		table: []option{{"start_factor", &start, nil}, {"end_factor", &end, nil}, {"total_iters", &total, nil}},
		lr: func(s *LRScheduler, _ int, now float64) float64 {
			switch {
			case s.epoch == 0:
				return now * start
			case s.initial || s.epoch > total:
				return now
			}
			return now * (1 + (end-start)/(float64(total)*start+float64(s.epoch-1)*(end-start)))
		},
		closed: func(s *LRScheduler, i int) float64 {
			return s.base[i] * (start + (end-start)*float64(min(total, s.epoch))/float64(total))
		},
	})
}

// NewExponentialLR multiplies the learning rate by gamma in each step: γ₀ gammaᵉ
// (torch.optim.lr_scheduler.ExponentialLR).
func NewExponentialLR(opt Optimizer, gamma float64) *LRScheduler {
	return newScheduler("ExponentialLR", opt, formula{
		table: []option{{"gamma", &gamma, nil}},
		lr: func(s *LRScheduler, _ int, now float64) float64 {
			if s.initial {
				return now
			}
			return now * gamma
		},
		closed: func(s *LRScheduler, i int) float64 { return s.base[i] * pow(gamma, float64(s.epoch)) },
	})
}

// PolynomialLROptions are the optional arguments of [NewPolynomialLR].
type PolynomialLROptions struct {
	TotalIters torch.Opt[int]     // default 5
	Power      torch.Opt[float64] // default 1
}

// NewPolynomialLR goes to zero in TotalIters steps: γ₀ (1 − e/TotalIters)^Power
// (torch.optim.lr_scheduler.PolynomialLR).
func NewPolynomialLR(opt Optimizer, opts ...PolynomialLROptions) *LRScheduler {
	o := opt1(opts)
	total, power := o.TotalIters.Or(5), o.Power.Or(1)
	left := func(epoch int) float64 { return 1 - float64(epoch)/float64(total) }
	return newScheduler("PolynomialLR", opt, formula{
		table: []option{{"total_iters", &total, nil}, {"power", &power, nil}},
		lr: func(s *LRScheduler, _ int, now float64) float64 {
			if s.initial || s.epoch > total {
				return now
			}
			return now * pow(left(s.epoch)/left(s.epoch-1), power)
		},
		closed: func(s *LRScheduler, i int) float64 { return s.base[i] * pow(left(min(total, s.epoch)), power) },
	})
}

// CosineAnnealingLROptions are the optional arguments of [NewCosineAnnealingLR].
type CosineAnnealingLROptions struct {
	EtaMin float64 // the lowest learning rate
}

// NewCosineAnnealingLR goes from γ₀ to EtaMin in tMax steps, and back, on a cosine:
// EtaMin + (γ₀ − EtaMin)(1 + cos(πe/tMax))/2 (torch.optim.lr_scheduler.CosineAnnealingLR; Loshchilov and
// Hutter, 2016). What changes the learning rate beside it scales the rest.
func NewCosineAnnealingLR(opt Optimizer, tMax int, opts ...CosineAnnealingLROptions) *LRScheduler {
	low := opt1(opts).EtaMin
	cos := func(epoch int) float64 { return math.Cos(math.Pi * float64(epoch) / float64(tMax)) }
	return newScheduler("CosineAnnealingLR", opt, formula{
		table: []option{{"T_max", &tMax, nil}, {"eta_min", &low, nil}},
		lr: func(s *LRScheduler, i int, now float64) float64 {
			switch {
			case s.initial:
				return now
			case s.count == 1 && s.epoch > 0:
				return low + (s.base[i]-low)*(1+math.Cos(float64(s.epoch)*math.Pi/float64(tMax)))/2
			case (s.epoch-1-tMax)%(2*tMax) == 0:
				return now + (s.base[i]-low)*(1-math.Cos(math.Pi/float64(tMax)))/2
			}
			return (1+cos(s.epoch))/(1+cos(s.epoch-1))*(now-low) + low
		},
		closed: func(s *LRScheduler, i int) float64 { return low + (s.base[i]-low)*(1+cos(s.epoch))/2 },
	})
}

// CosineAnnealingWarmRestartsOptions are the optional arguments of [NewCosineAnnealingWarmRestarts].
type CosineAnnealingWarmRestartsOptions struct {
	TMult  torch.Opt[int] // factor from one period to the next; default 1
	EtaMin float64        // the lowest learning rate
}

// NewCosineAnnealingWarmRestarts goes from γ₀ to EtaMin on a cosine and starts again, first after t0 steps
// (torch.optim.lr_scheduler.CosineAnnealingWarmRestarts; Loshchilov and Hutter, 2016).
func NewCosineAnnealingWarmRestarts(opt Optimizer, t0 int, opts ...CosineAnnealingWarmRestartsOptions) *LRScheduler {
	o := opt1(opts)
	mult, low := o.TMult.Or(1), o.EtaMin
	if t0 <= 0 {
		fail("CosineAnnealingWarmRestarts", "Expected positive integer T_0, but got %d", t0)
	}
	if mult < 1 {
		fail("CosineAnnealingWarmRestarts", "Expected integer T_mult >= 1, but got %d", mult)
	}
	period, current := t0, -1.0 // T_i and T_cur
	return newScheduler("CosineAnnealingWarmRestarts", opt, formula{
		table: []option{{"T_0", &t0, nil}, {"T_i", &period, nil}, {"T_mult", &mult, nil}, {"eta_min", &low, nil}, {"T_cur", &current, nil}},
		lr: func(s *LRScheduler, i int, _ float64) float64 {
			return low + (s.base[i]-low)*(1+math.Cos(math.Pi*current/float64(period)))/2
		},
		to: func(s *LRScheduler, epoch float64) {
			switch {
			case epoch < 0 && s.epoch < 0:
				epoch = 0
			case epoch < 0:
				s.epoch++
				if current++; current >= float64(period) {
					current = math.Mod(current, float64(period))
					period *= mult
				}
				return
			}
			switch first := float64(t0); {
			case epoch < first:
				period, current = t0, epoch
			case mult == 1:
				current = math.Mod(epoch, first)
			default:
				n := math.Trunc(math.Log(epoch/first*float64(mult-1)+1) / math.Log(float64(mult)))
				current = epoch - first*(pow(float64(mult), n)-1)/float64(mult-1)
				period = t0 * int(pow(float64(mult), n))
			}
			s.epoch = int(math.Floor(epoch))
		},
	})
}

// LinearWithWarmup makes the schedule of transformers' get_linear_schedule_with_warmup: up from zero for
// warmup steps, then down to zero at total.
func LinearWithWarmup(opt Optimizer, warmup, total int) *LRScheduler {
	return NewLambdaLR(opt, func(e int) float64 {
		if e < warmup {
			return float64(e) / float64(max(1, warmup))
		}
		return max(0, float64(total-e)/float64(max(1, total-warmup)))
	})
}

// CosineWithWarmup makes the schedule of transformers' get_cosine_schedule_with_warmup: up from zero for
// warmup steps, then half a cosine down to zero at total.
func CosineWithWarmup(opt Optimizer, warmup, total int) *LRScheduler {
	return NewLambdaLR(opt, func(e int) float64 {
		if e < warmup {
			return float64(e) / float64(max(1, warmup))
		}
		progress := float64(e-warmup) / float64(max(1, total-warmup))
		return max(0, 0.5*(1+math.Cos(math.Pi*0.5*2*progress)))
	})
}
