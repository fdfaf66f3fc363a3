package nn

import "github.com/torchgo/torchgo/torch"

func uniform(t *torch.Tensor, from, to float64) {
	t.Uniform_(torch.UniformOptions{From: from, To: torch.Some(to)})
}

func normal(t *torch.Tensor, mean, std float64) {
	t.Normal_(torch.NormalInPlaceOptions{Mean: mean, Std: torch.Some(std)})
}
