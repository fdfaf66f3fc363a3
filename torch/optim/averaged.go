package optim

import (
	"iter"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// AveragedModel keeps an average of a model's parameters over the steps of its training
// (torch.optim.swa_utils.AveragedModel): with a the average, θ the parameter and n the number of updates so far,
//
//	a ← a + (θ − a)/(n + 1)            stochastic weight averaging (Izmailov et al., 2018), the default
//	a ← a + (1 − Decay)(θ − a)         exponential moving average, with Decay
//
// The first update copies.
type AveragedModel[M any] struct {
	Module    M             `torch:"module"`            // a copy of the model, whose parameters are the averages
	NAveraged *torch.Tensor `torch:"n_averaged,buffer"` // number of updates, int64 of no dimensions

	opts AveragedModelOptions
}

// AveragedModelOptions are the optional arguments of [NewAveragedModel].
type AveragedModelOptions struct {
	Decay      torch.Opt[float64] // of an exponential moving average
	UseBuffers bool               // buffers are averaged as well; else they are copied
}

// NewAveragedModel makes the average of a model, as yet a copy of it. It may be used like any module, and its
// state dict is PyTorch's.
func NewAveragedModel[M any](model M, opts ...AveragedModelOptions) *AveragedModel[M] {
	o := opt1(opts)
	if decay, ok := o.Decay.Get(); ok && !(decay >= 0 && decay <= 1) {
		fail("AveragedModel", "Invalid decay value %s provided. Please provide a value in [0,1] range.", pythonFloat(decay))
	}
	a := &AveragedModel[M]{Module: nn.Clone(model), NAveraged: torch.Zeros([]int{}, torch.TensorOptions{DType: torch.Int64}), opts: o}
	torch.Keep(a.NAveraged)
	return a
}

// pairs calls fn with the parameters of both, and then the buffers, in lists of one dtype and device.
func (a *AveragedModel[M]) pairs(model M, fn func(averages, current []*torch.Tensor, buffers bool)) {
	type kind struct {
		dtype  torch.DType
		device torch.Device
	}
	both := func(buffers bool, of func(any) iter.Seq2[string, *torch.Tensor]) {
		others := map[string]*torch.Tensor{}
		for name, t := range of(model) {
			others[name] = t
		}
		lists := map[kind][2][]*torch.Tensor{}
		var order []kind
		n := 0
		for name, t := range of(a.Module) {
			other := others[name]
			if other == nil {
				fail("AveragedModel", "the model has no %s", name)
			}
			n++
			k := kind{t.DType(), t.Device()}
			pair, ok := lists[k]
			if !ok {
				order = append(order, k)
			}
			lists[k] = [2][]*torch.Tensor{append(pair[0], t.Detach()), append(pair[1], other.Detach().To(k.device))}
		}
		if n != len(others) {
			fail("AveragedModel", "the model has %d parameters or buffers, the average %d", len(others), n)
		}
		for _, k := range order {
			fn(lists[k][0], lists[k][1], buffers)
		}
	}
	torch.Scope(func() {
		torch.NoGrad(func() {
			both(false, nn.NamedParameters)
			both(true, nn.NamedBuffers)
		})
	})
}

func copyAll(to, from []*torch.Tensor) { torch.Internal.ForeachCopy_(to, from) }

// UpdateParameters takes the parameters of model, which must have those of the average, into it.
func (a *AveragedModel[M]) UpdateParameters(model M) {
	n := torch.Item[int](a.NAveraged)
	weight := 1 / float64(n+1)
	if decay, ok := a.opts.Decay.Get(); ok {
		weight = 1 - decay
	}
	a.pairs(model, func(averages, current []*torch.Tensor, buffers bool) {
		switch dtype := averages[0].DType(); {
		case n == 0 || buffers && !a.opts.UseBuffers:
			copyAll(averages, current)
		case dtype.IsFloatingPoint() || dtype.IsComplex():
			torch.Internal.ForeachLerpScalar_(averages, current, weight)
		default:
			for i, t := range averages {
				t.Copy_(t.MulScalar(1 - weight).Add(current[i].MulScalar(weight)))
			}
		}
	})
	torch.NoGrad(func() { a.NAveraged.AddScalar_(1) })
}

// UpdateBN computes the running values of the batch norms of model anew, as plain means over batches, by
// calling forward on each batch in training mode (torch.optim.swa_utils.update_bn): averaged weights need
// it. Modes and momenta are what they were afterwards.
func UpdateBN(batches iter.Seq[*torch.Tensor], model any, forward func(x *torch.Tensor) *torch.Tensor) {
	var norms []*nn.BatchNorm
	modes := map[interface{ SetTraining(bool) }]bool{}
	for _, m := range nn.NamedModules(model) {
		switch b := m.(type) {
		case *nn.BatchNorm1d:
			norms = append(norms, &b.BatchNorm)
		case *nn.BatchNorm2d:
			norms = append(norms, &b.BatchNorm)
		case *nn.BatchNorm3d:
			norms = append(norms, &b.BatchNorm)
		}
		if mode, ok := m.(interface {
			Training() bool
			SetTraining(bool)
		}); ok {
			modes[mode] = mode.Training()
		}
	}
	if norms == nil {
		return
	}
	was := make([]bool, len(norms))
	torch.NoGrad(func() {
		for i, b := range norms {
			was[i] = b.Cumulative
			b.Cumulative = true
			if b.RunningMean != nil {
				b.RunningMean.Zero_()
				b.RunningVar.Fill_(1)
				b.NumBatchesTracked.Zero_()
			}
		}
	})
	defer func() {
		for i, b := range norms {
			b.Cumulative = was[i]
		}
		for m, on := range modes {
			m.SetTraining(on)
		}
	}()
	nn.Train(model)
	for x := range batches {
		torch.Scope(func() { torch.NoGrad(func() { forward(x) }) })
	}
}
