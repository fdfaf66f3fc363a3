package optim

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

// On a GPU every optimizer goes where it goes on the CPU, in each implementation, and takes over a state from
// there.
func TestCUDAOptimizers(t *testing.T) {
	if torch.CUDADeviceCount() == 0 {
		t.Skip("needs a GPU that libtorch can use")
	}
	_, states := readStates(t)
	for name, ref := range states {
		for _, impl := range []string{"", "foreach", "fused"} {
			torch.Scope(func() {
				host, hostParams := ref.new(name, ref.Start)
				defer host.Close()
				steps(host, hostParams, 3)
				var params []*torch.Tensor
				for _, p := range hostParams {
					params = append(params, p.Detach().To(torch.CUDA(0)).SetRequiresGrad(true))
				}
				has := false
				opt := makers[name](params, func(table []option) {
					for _, o := range table {
						if v, ok := ref.Options[o.key]; ok {
							require.NoError(t, o.set(v, true))
						}
						if o.key == impl {
							has = true
							require.NoError(t, o.set(true, true))
						}
					}
				})
				defer opt.Close()
				if impl != "" && !has {
					return
				}
				state := host.StateDict()
				if len(state.ParamGroups) == 2 {
					state.ParamGroups[0]["params"] = []int{0, 1}
					state.ParamGroups = state.ParamGroups[:1]
					if host.Groups()[0].Get(impl) == nil && impl != "" {
						state.ParamGroups[0][impl] = true
					}
					host.Groups()[1].SetLR(host.Groups()[0].LR())
				}
				require.NoError(t, opt.LoadStateDict(state))
				for range 2 {
					steps(host, hostParams, 1)
					torch.Scope(func() {
						opt.Step(func() *torch.Tensor {
							opt.ZeroGrad()
							total := torch.Zeros([]int{}, torch.TensorOptions{DType: torch.Float64, Device: torch.CUDA(0)})
							for _, p := range params {
								total = total.Add(p.SubScalar(0.25).PowScalar(2).Sum().Add(p.PowScalar(4).Sum().MulScalar(0.1)))
							}
							total.Backward()
							return total
						})
					})
				}
				tolerance := 1e-9
				if name == "Muon" {
					tolerance = 1e-3 // it computes in bfloat16
				}
				for i, p := range params {
					require.InDeltaSlice(t, torch.ToSlice[float64](hostParams[i]), torch.ToSlice[float64](p), tolerance, "%s %s", name, impl)
				}
			})
		}
	}
}
