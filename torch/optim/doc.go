// Package optim holds PyTorch's optimizers, learning-rate schedulers, gradient scaling and averaged models.
//
//	opt := optim.NewAdamW(nn.Parameters(model), optim.AdamWOptions{LR: 1e-3})
//	defer opt.Close()
//	for batch := range batches {
//		torch.Scope(func() {
//			opt.ZeroGrad()
//			loss := nn.CrossEntropy(model.Forward(batch.X), batch.Y)
//			loss.Backward()
//			opt.Step()
//		})
//	}
//
// Names, defaults, formulas and the order of operations are those of torch.optim. In the documentation θ is
// a parameter, g its gradient, γ the learning rate, λ the weight decay, t the number of the step from 1.
// With Maximize, g is the negative gradient.
//
// # Options
//
// LR is a plain number whose zero means PyTorch's default; [Group.SetLR] sets any value, zero included.
// Where PyTorch's default is not Go's zero value, other options are a [torch.Opt]. Foreach and Fused choose
// an implementation: foreach runs each operation on all tensors in one call, fused all operations in one
// kernel. Unset, the fastest that the parameters allow is chosen; the results differ by rounding only.
// PyTorch's capturable and differentiable don't exist here; state dicts have them as false.
//
// # Errors
//
// Wrong options, an empty parameter list and the like are mistakes in the program: they panic with a
// *[torch.Error] that has PyTorch's message. State dicts and files are data: their errors are returned.
//
// # Memory
//
// The state of an optimizer belongs to it, not to the scope it was made in; Close frees it. What a step
// makes on the way is freed at its end.
package optim
