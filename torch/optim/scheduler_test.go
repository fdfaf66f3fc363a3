package optim

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/torch"
)

// optimRef is reference.json of tools/optimref.
func optimRef(t *testing.T) map[string]any {
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "optim"), "reference.json"))
	require.NoError(t, err)
	v, err := strictjson.Parse(text, strictjson.Options{AllowNaN: true})
	require.NoError(t, err)
	return v.Any().(map[string]any)
}

func twoSGD() Optimizer {
	opt := NewSGD([]*torch.Tensor{torch.Zeros([]int{1})}, SGDOptions{LR: 0.1, Momentum: 0.9})
	opt.AddParamGroup([]*torch.Tensor{torch.Zeros([]int{1})}, func(o *SGDOptions) { o.LR = 0.5 })
	return opt
}

func twoAdam() Optimizer {
	opt := NewAdam([]*torch.Tensor{torch.Zeros([]int{1})}, AdamOptions{LR: 0.1})
	opt.AddParamGroup([]*torch.Tensor{torch.Zeros([]int{1})}, func(o *AdamOptions) { o.LR = 0.5 })
	return opt
}

// stepper is a scheduler, or a ReduceLROnPlateau.
type stepper interface {
	LastLR() []float64
	StateDict() map[string]any
	LoadStateDict(map[string]any) error
}

func some[T any](v T) torch.Opt[T] { return torch.Some(v) }

// schedules are those of tools/optimref under its names.
var schedulesByName = map[string]struct {
	opt func() Optimizer
	new func(o Optimizer) stepper
}{
	"LambdaLR": {twoSGD, func(o Optimizer) stepper {
		return NewLambdaLR(o, func(e int) float64 { return math.Pow(0.95, float64(e)) })
	}},
	"LambdaLR two": {twoSGD, func(o Optimizer) stepper {
		return NewLambdaLR(o, func(e int) float64 { return 1 / float64(e+1) }, func(e int) float64 { return float64(e) / 7 })
	}},
	"MultiplicativeLR": {twoSGD, func(o Optimizer) stepper {
		return NewMultiplicativeLR(o, func(e int) float64 { return 0.9 + 0.01*float64(e%3) })
	}},
	"StepLR": {twoSGD, func(o Optimizer) stepper { return NewStepLR(o, 3, StepLROptions{Gamma: some(0.3)}) }},
	"MultiStepLR": {twoSGD, func(o Optimizer) stepper {
		return NewMultiStepLR(o, []int{2, 5, 5, 9}, MultiStepLROptions{Gamma: some(0.2)})
	}},
	"ConstantLR": {twoSGD, func(o Optimizer) stepper {
		return NewConstantLR(o, ConstantLROptions{Factor: some(0.3), TotalIters: some(4)})
	}},
	"LinearLR":         {twoSGD, func(o Optimizer) stepper { return NewLinearLR(o, LinearLROptions{some(0.2), some(0.8), some(7)}) }},
	"LinearLR default": {twoSGD, func(o Optimizer) stepper { return NewLinearLR(o) }},
	"ExponentialLR":    {twoSGD, func(o Optimizer) stepper { return NewExponentialLR(o, 0.83) }},
	"PolynomialLR":     {twoSGD, func(o Optimizer) stepper { return NewPolynomialLR(o, PolynomialLROptions{some(12), some(2.0)}) }},
	"PolynomialLR 0.7": {twoSGD, func(o Optimizer) stepper { return NewPolynomialLR(o, PolynomialLROptions{some(9), some(0.7)}) }},
	"CosineAnnealingLR": {twoSGD, func(o Optimizer) stepper {
		return NewCosineAnnealingLR(o, 8, CosineAnnealingLROptions{EtaMin: 0.01})
	}},
	"CosineAnnealingLR odd": {twoAdam, func(o Optimizer) stepper { return NewCosineAnnealingLR(o, 7) }},
	"CosineAnnealingWarmRestarts": {twoSGD, func(o Optimizer) stepper {
		return NewCosineAnnealingWarmRestarts(o, 4, CosineAnnealingWarmRestartsOptions{EtaMin: 0.003})
	}},
	"CosineAnnealingWarmRestarts mult": {twoSGD, func(o Optimizer) stepper {
		return NewCosineAnnealingWarmRestarts(o, 3, CosineAnnealingWarmRestartsOptions{TMult: some(2), EtaMin: 0.003})
	}},
	"OneCycleLR": {twoSGD, func(o Optimizer) stepper { return NewOneCycleLR(o, []float64{0.7}, 30) }},
	"OneCycleLR linear": {twoSGD, func(o Optimizer) stepper {
		return NewOneCycleLR(o, []float64{0.7, 0.2}, 31, OneCycleLROptions{AnnealStrategy: "linear", PctStart: some(0.4)})
	}},
	"OneCycleLR three": {twoAdam, func(o Optimizer) stepper {
		return NewOneCycleLR(o, []float64{0.7}, 40, OneCycleLROptions{ThreePhase: true, DivFactor: some(10.0)})
	}},
	"OneCycleLR still": {twoSGD, func(o Optimizer) stepper {
		return NewOneCycleLR(o, []float64{0.7}, 20, OneCycleLROptions{CycleMomentum: some(false)})
	}},
	"CyclicLR": {twoSGD, func(o Optimizer) stepper {
		return NewCyclicLR(o, []float64{0.01}, []float64{0.4}, CyclicLROptions{StepSizeUp: some(5)})
	}},
	"CyclicLR triangular2": {twoAdam, func(o Optimizer) stepper {
		return NewCyclicLR(o, []float64{0.01}, []float64{0.4, 0.2}, CyclicLROptions{StepSizeUp: some(4), StepSizeDown: some(7), Mode: "triangular2"})
	}},
	"CyclicLR exp_range": {twoSGD, func(o Optimizer) stepper {
		return NewCyclicLR(o, []float64{0.01}, []float64{0.4}, CyclicLROptions{StepSizeUp: some(5), Mode: "exp_range", Gamma: some(0.97), CycleMomentum: some(false)})
	}},
	"ReduceLROnPlateau": {twoSGD, func(o Optimizer) stepper {
		return NewReduceLROnPlateau(o, ReduceLROnPlateauOptions{Factor: some(0.4), Patience: some(2), Cooldown: 1, MinLR: []float64{0.001, 0.02}})
	}},
	"ReduceLROnPlateau max": {twoSGD, func(o Optimizer) stepper {
		return NewReduceLROnPlateau(o, ReduceLROnPlateauOptions{Mode: "max", ThresholdMode: "abs", Threshold: some(0.05), Patience: some(3)})
	}},
	"ChainedScheduler": {twoSGD, func(o Optimizer) stepper {
		return NewChainedScheduler(NewConstantLR(o, ConstantLROptions{some(0.5), some(6)}), NewExponentialLR(o, 0.9))
	}},
	"ChainedScheduler cosine": {twoSGD, func(o Optimizer) stepper {
		return NewChainedScheduler(NewCosineAnnealingLR(o, 9), NewStepLR(o, 4, StepLROptions{some(0.5)}))
	}},
	"SequentialLR": {twoSGD, func(o Optimizer) stepper {
		return NewSequentialLR(o, []Scheduler{NewConstantLR(o, ConstantLROptions{some(0.1), some(5)}), NewExponentialLR(o, 0.9),
			NewStepLR(o, 2, StepLROptions{some(0.5)})}, []int{5, 11})
	}},
	"SequentialLR warmup": {twoSGD, func(o Optimizer) stepper {
		return NewSequentialLR(o, []Scheduler{NewLinearLR(o, LinearLROptions{StartFactor: some(0.1), TotalIters: some(4)}), NewCosineAnnealingLR(o, 15)}, []int{4})
	}},
	"SequentialLR restarts": {twoSGD, func(o Optimizer) stepper {
		return NewSequentialLR(o, []Scheduler{NewLinearLR(o, LinearLROptions{TotalIters: some(3)}), NewCosineAnnealingWarmRestarts(o, 5)}, []int{3})
	}},
	"linear with warmup": {twoSGD, func(o Optimizer) stepper { return LinearWithWarmup(o, 4, 17) }},
	"cosine with warmup": {twoSGD, func(o Optimizer) stepper { return CosineWithWarmup(o, 4, 17) }},
}

// requireGroups compares learning rate and momentum of each group with a recorded row.
func requireGroups(t *testing.T, want any, opt Optimizer, where string, at any) {
	t.Helper()
	for i, row := range want.([]any) {
		for k, v := range row.([]any) {
			w, _ := number(v)
			got := opt.Groups()[i].LR()
			if k == 1 {
				if betas, ok := opt.Groups()[i].Get("betas").([]any); ok {
					got = betas[0].(float64)
				} else {
					got, _ = number(opt.Groups()[i].Get("momentum"))
				}
			}
			require.LessOrEqual(t, math.Abs(got-w), 1e-17+1e-12*math.Abs(w), "%s, step %v, group %d: expected %v, got %v", where, at, i, w, got)
		}
	}
}

func advance(s stepper, metric float64) {
	if p, ok := s.(*ReduceLROnPlateau); ok {
		p.Step(metric)
	} else {
		s.(Scheduler).Step()
	}
}

// Learning rates and momenta are Python's, step by step; the state dict has Python's entries; and Python's
// state dict, loaded in the middle, goes on in the same way.
func TestSchedulers(t *testing.T) {
	require.NoError(t, torch.Load())
	cases := optimRef(t)["schedules"].(map[string]any)
	require.Len(t, schedulesByName, len(cases))
	for name, v := range cases {
		t.Run(name, func(t *testing.T) {
			ref := v.(map[string]any)
			values := ref["values"].([]any)
			metric := func(i int) float64 {
				list, _ := ref["metric"].([]any)
				if i >= len(list) {
					return 0
				}
				x, _ := number(list[i])
				return x
			}
			opt := schedulesByName[name].opt()
			s := schedulesByName[name].new(opt)
			requireGroups(t, values[0], opt, name, 0)
			var resumed stepper
			var second Optimizer
			for i, want := range values[1:] {
				advance(s, metric(i))
				requireGroups(t, want, opt, name, i+1)
				for k, lr := range s.LastLR() {
					require.Equal(t, opt.Groups()[k].LR(), lr)
				}
				if resumed != nil {
					advance(resumed, metric(i))
					requireGroups(t, want, second, name+" resumed", i+1)
				}
				if state, ok := ref["state"].(map[string]any); ok && i == 6 {
					requireState(t, state, s.StateDict(), name)
					second = schedulesByName[name].opt()
					resumed = schedulesByName[name].new(second)
					require.NoError(t, resumed.LoadStateDict(state))
					// The rates are in the optimizer's state.
					for k, g := range opt.Groups() {
						for _, key := range []string{"lr", "momentum", "betas", "initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"} {
							if x := g.Get(key); x != nil {
								second.Groups()[k].Set(key, x)
							}
						}
					}
				}
			}
		})
	}
}

// requireState checks that ours has Python's entries, as far as it claims to.
func requireState(t *testing.T, want, got map[string]any, where string) {
	t.Helper()
	missing := map[string]string{
		"milestones": "Counter", "_milestones": "the constructor's", "lr_lambdas": "functions", "_schedule_phases": "the constructor's",
		"_scale_fn_custom": "a function", "default_min_lr": "in min_lrs",
	}
	for key, w := range want {
		if missing[key] != "" {
			continue
		}
		if key == "_schedulers" {
			for i, child := range w.([]any) {
				requireState(t, child.(map[string]any), got[key].([]any)[i].(map[string]any), where)
			}
			continue
		}
		g, ok := got[key]
		require.True(t, ok, "%s: no %s", where, key)
		if x, isNumber := number(w); isNumber && math.IsInf(x, 0) {
			require.Equal(t, x, g)
			continue
		}
		requireSame(t, w, g, where+"."+key)
	}
	require.Subset(t, keysOf(want), keysOf(got), where)
}

// Jumps to an epoch use the closed forms.
func TestSchedulersStepTo(t *testing.T) {
	for name, rows := range optimRef(t)["closed"].(map[string]any) {
		opt := schedulesByName[name].opt()
		s := schedulesByName[name].new(opt).(*LRScheduler)
		for _, row := range rows.([]any) {
			epoch, _ := number(row.([]any)[0])
			s.StepTo(epoch)
			requireGroups(t, row.([]any)[1], opt, name, epoch)
		}
	}
}

// The state of a scheduler goes through JSON.
func TestSchedulerStateAsJSON(t *testing.T) {
	opt := twoSGD()
	s := NewSequentialLR(opt, []Scheduler{NewLinearLR(opt), NewStepLR(opt, 2)}, []int{3})
	for range 5 {
		s.Step()
	}
	text, err := json.Marshal(s.StateDict())
	require.NoError(t, err)
	v, err := strictjson.Parse(text, strictjson.Options{})
	require.NoError(t, err)
	other := twoSGD()
	resumed := NewSequentialLR(other, []Scheduler{NewLinearLR(other), NewStepLR(other, 2)}, []int{3})
	require.NoError(t, resumed.LoadStateDict(v.Any().(map[string]any)))
	for i, g := range opt.Groups() {
		other.Groups()[i].SetLR(g.LR())
	}
	for range 5 {
		s.Step()
		resumed.Step()
		require.Equal(t, s.LastLR(), resumed.LastLR())
	}
}

func TestSchedulersRefuse(t *testing.T) {
	opt, other := twoSGD(), twoSGD()
	adagrad := NewAdagrad([]*torch.Tensor{torch.Zeros([]int{1})})
	for want, make := range map[string]func(){
		"ConstantLR: Constant multiplicative factor expected to be between 0 and 1.": func() { NewConstantLR(opt, ConstantLROptions{Factor: some(1.5)}) },
		"LinearLR: Starting multiplicative factor expected to be greater than 0":     func() { NewLinearLR(opt, LinearLROptions{StartFactor: some(0.0)}) },
		"LambdaLR: Expected 2 lr_lambdas, but got 3":                                 func() { NewLambdaLR(opt, nil, nil, nil) },
		"CosineAnnealingWarmRestarts: Expected positive integer T_0, but got 0":      func() { NewCosineAnnealingWarmRestarts(opt, 0) },
		"OneCycleLR: Expected positive integer total_steps, but got 0":               func() { NewOneCycleLR(opt, []float64{1}, 0) },
		"OneCycleLR: optimizer must support momentum or beta1 with":                  func() { NewOneCycleLR(adagrad, []float64{1}, 5) },
		"OneCycleLR: Tried to step 6 times. The specified number of total steps is 5": func() {
			s := NewOneCycleLR(twoSGD(), []float64{1}, 5)
			for range 6 {
				s.Step()
			}
		},
		"CyclicLR: mode is invalid and scale_fn is None":                          func() { NewCyclicLR(opt, []float64{1}, []float64{1}, CyclicLROptions{Mode: "x"}) },
		"CyclicLR: max_lr must have the same length as optimizer.param_groups":    func() { NewCyclicLR(opt, []float64{1}, []float64{1, 2, 3}) },
		"SequentialLR: SequentialLR expects all schedulers to belong to the same": func() { NewSequentialLR(opt, []Scheduler{NewStepLR(other, 1)}, nil) },
		"SequentialLR: Sequential Schedulers expects number of schedulers":        func() { NewSequentialLR(opt, []Scheduler{NewStepLR(opt, 1)}, []int{3}) },
		"ChainedScheduler: ChainedScheduler expects at least one scheduler":       func() { NewChainedScheduler() },
		"ReduceLROnPlateau: Factor should be < 1.0.":                              func() { NewReduceLROnPlateau(opt, ReduceLROnPlateauOptions{Factor: some(1.0)}) },
		"ReduceLROnPlateau: mode best is unknown!":                                func() { NewReduceLROnPlateau(opt, ReduceLROnPlateauOptions{Mode: "best"}) },
		"StepLR: the optimizer has 3 parameter groups, and had 2": func() {
			o := twoSGD().(*SGD)
			s := NewStepLR(o, 1)
			o.AddParamGroup([]*torch.Tensor{torch.Zeros([]int{1})})
			s.Step()
		},
	} {
		err := torch.TryDo(make)
		require.Error(t, err, want)
		require.True(t, strings.HasPrefix(err.Error(), want), "expected %q, got %q", want, err)
	}
	s := NewStepLR(opt, 3)
	require.ErrorContains(t, s.LoadStateDict(map[string]any{"gamma": "x"}), "load state dict: StepLR: gamma: unexpected value x")
	require.ErrorContains(t, s.LoadStateDict(map[string]any{"base_lrs": []any{1.0}}), "base_lrs: expected a list of 2 numbers")
}
