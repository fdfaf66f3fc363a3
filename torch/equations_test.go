package torch

import (
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The equations that the documentation states, computed with other operators: an entry is the schema's
// name, the operator's result and what its equation gives.
func equations() map[string][2]*Tensor {
	f64 := TensorOptions{DType: Float64}
	rand := func(sizes ...int) *Tensor { return Rand(sizes, f64).MulScalar(0.8).AddScalar(0.1) } // in (0.1, 0.9)
	x, y, z := rand(3, 4).Mul(Randint(2, []int{3, 4}, f64).MulScalar(2).SubScalar(1)), rand(3, 4), rand(3, 4)
	m, n, v, w := rand(3, 5), rand(5, 4), rand(5), rand(3)
	batch, batch2 := rand(2, 3, 5), rand(2, 5, 4)
	square := rand(4, 4)
	spd := square.MatMul(square.T()).Add(Eye(4, f64))
	classes := FromSlice([]int64{1, 0, 3}, 3)
	hard := func(t *Tensor) *Tensor { // min(max(t/6 + 1/2, 0), 1)
		return t.DivScalar(6).AddScalar(0.5).Clamp(ClampOptions{Min: 0, Max: 1})
	}
	zero, one := x.MulScalar(0), ZerosLike(x).AddScalar(1)
	e := func(t *Tensor) *Tensor { return t.Exp() }
	neg := func(t *Tensor) *Tensor { return t.MulScalar(-1) }
	d := x.Sub(y).Abs()
	mean := func(t *Tensor) *Tensor { return t.Sum().DivScalar(t.Numel()) }
	row := []int{1}
	keep := SumDimOptions{KeepDim: true}
	mu := x.SumDim(row, keep).DivScalar(4)
	vary := x.Sub(mu).Square().SumDim(row, keep).DivScalar(4)
	soft := e(x).Div(e(x).SumDim(row, keep))
	softplus := func(t *Tensor) *Tensor { return e(t).AddScalar(1).Log() }
	sigma := func(t *Tensor) *Tensor { return e(neg(t)).AddScalar(1).Reciprocal() }
	u, s, vh := LinalgSvd(m, LinalgSvdOptions{FullMatrices: Some(false)})
	q, r := LinalgQr(m)
	evals, evecs := LinalgEigh(spd)
	sign, logabsdet := LinalgSlogdet(spd)
	chol := LinalgCholesky(spd)
	query, key, value := rand(1, 2, 3, 4), rand(1, 2, 5, 4), rand(1, 2, 5, 4)
	h, wih, whh := rand(3, 2), rand(2, 4), rand(2, 2)

	return map[string][2]*Tensor{
		"aten::add.Tensor":                       {x.Add(y, AddOptions{Alpha: 2}), x.Add(y.MulScalar(2))},
		"aten::sub.Tensor":                       {x.Sub(y, SubOptions{Alpha: 2}), x.Add(y.MulScalar(-2))},
		"aten::rsub.Scalar":                      {RsubScalar(x, 3, RsubScalarOptions{Alpha: 2}), x.MulScalar(-2).AddScalar(3)},
		"aten::floor_divide":                     {x.FloorDivide(y), x.Div(y).Floor()},
		"aten::remainder.Tensor":                 {x.Remainder(y), x.Sub(y.Mul(x.Div(y).Floor()))},
		"aten::fmod.Tensor":                      {x.Fmod(y), x.Sub(y.Mul(x.Div(y).Trunc()))},
		"aten::lerp.Scalar":                      {x.LerpScalar(y, 0.3), x.Add(y.Sub(x).MulScalar(0.3))},
		"aten::addcmul":                          {x.Addcmul(y, z, AddcmulOptions{Value: 2}), x.Add(y.Mul(z).MulScalar(2))},
		"aten::addcdiv":                          {x.Addcdiv(y, z, AddcdivOptions{Value: 2}), x.Add(y.Div(z).MulScalar(2))},
		"aten::hypot":                            {x.Hypot(y), x.Square().Add(y.Square()).Sqrt()},
		"aten::copysign.Tensor":                  {y.Copysign(x), y.Abs().Mul(x.Sign())},
		"aten::expm1":                            {x.Expm1(), e(x).SubScalar(1)},
		"aten::exp2":                             {x.Exp2(), e(x.MulScalar(math.Ln2))},
		"aten::log1p":                            {y.Log1p(), y.AddScalar(1).Log()},
		"aten::log2":                             {y.Log2(), y.Log().DivScalar(math.Ln2)},
		"aten::log10":                            {y.Log10(), y.Log().DivScalar(math.Ln10)},
		"aten::logaddexp":                        {x.Logaddexp(y), e(x).Add(e(y)).Log()},
		"aten::xlogy.Tensor":                     {x.Xlogy(y), x.Mul(y.Log())},
		"aten::rsqrt":                            {y.Rsqrt(), y.Sqrt().Reciprocal()},
		"aten::tan":                              {x.Tan(), x.Sin().Div(x.Cos())},
		"aten::atan2":                            {x.Atan2(y), x.Div(y).Atan()},
		"aten::sinh":                             {x.Sinh(), e(x).Sub(e(neg(x))).DivScalar(2)},
		"aten::cosh":                             {x.Cosh(), e(x).Add(e(neg(x))).DivScalar(2)},
		"aten::tanh":                             {x.Tanh(), e(x).Sub(e(neg(x))).Div(e(x).Add(e(neg(x))))},
		"aten::asinh":                            {x.Asinh(), x.Add(x.Square().AddScalar(1).Sqrt()).Log()},
		"aten::acosh":                            {y.AddScalar(1).Acosh(), y.AddScalar(1).Add(y.AddScalar(1).Square().SubScalar(1).Sqrt()).Log()},
		"aten::atanh":                            {x.Atanh(), one.Add(x).Div(one.Sub(x)).Log().DivScalar(2)},
		"aten::sinc":                             {x.Sinc(), x.MulScalar(math.Pi).Sin().Div(x.MulScalar(math.Pi))},
		"aten::deg2rad":                          {x.Deg2rad(), x.MulScalar(math.Pi / 180)},
		"aten::sigmoid":                          {x.Sigmoid(), sigma(x)},
		"aten::logit":                            {y.Logit(), y.Div(one.Sub(y)).Log()},
		"aten::erfc":                             {x.Erfc(), one.Sub(x.Erf())},
		"aten::mvlgamma":                         {y.AddScalar(1).Mvlgamma(2), y.AddScalar(1).Lgamma().Add(y.AddScalar(0.5).Lgamma()).AddScalar(math.Log(math.Pi) / 2)},
		"aten::frac":                             {x.MulScalar(5).Frac(), x.MulScalar(5).Sub(x.MulScalar(5).Trunc())},
		"aten::round.decimals":                   {x.RoundDecimals(1), x.MulScalar(10).Round().DivScalar(10)},
		"aten::where.self":                       {x.Where(x.GtScalar(0), y), x.Mul(x.GtScalar(0)).Add(y.Mul(x.LeScalar(0)))},
		"aten::relu6":                            {Relu6(x.MulScalar(20)), x.MulScalar(20).Clamp(ClampOptions{Min: 0, Max: 6})},
		"aten::gelu":                             {Gelu(x), x.Mul(x.DivScalar(math.Sqrt2).Erf().AddScalar(1).DivScalar(2))},
		"aten::silu":                             {Silu(x), x.Mul(sigma(x))},
		"aten::mish":                             {Mish(x), x.Mul(softplus(x).Tanh())},
		"aten::leaky_relu":                       {LeakyRelu(x, LeakyReluOptions{NegativeSlope: 0.2}), x.Where(x.GtScalar(0), x.MulScalar(0.2))},
		"aten::prelu":                            {x.Prelu(rand(4).MulScalar(0).AddScalar(0.3)), x.Where(x.GtScalar(0), x.MulScalar(0.3))},
		"aten::elu":                              {Elu(x, EluOptions{Alpha: 0.5, Scale: 2, InputScale: 3}), x.Where(x.GtScalar(0), e(x.MulScalar(3)).SubScalar(1).MulScalar(0.5)).MulScalar(2)},
		"aten::celu":                             {Celu(x, CeluOptions{Alpha: 0.5}), x.Where(x.GtScalar(0), e(x.DivScalar(0.5)).SubScalar(1).MulScalar(0.5))},
		"aten::softplus":                         {Softplus(x, SoftplusOptions{Beta: 2}), softplus(x.MulScalar(2)).DivScalar(2)},
		"aten::hardsigmoid":                      {Hardsigmoid(x.MulScalar(9)), hard(x.MulScalar(9))},
		"aten::hardswish":                        {Hardswish(x.MulScalar(9)), x.MulScalar(9).Mul(hard(x.MulScalar(9)))},
		"aten::softshrink":                       {Softshrink(x, SoftshrinkOptions{Lambd: 0.3}), x.Sign().Mul(x.Abs().SubScalar(0.3).ClampMin(0))},
		"aten::hardshrink":                       {x.Hardshrink(HardshrinkOptions{Lambd: 0.3}), x.Mul(x.Abs().GtScalar(0.3))},
		"aten::threshold":                        {Threshold(x, 0.2, 7), x.Where(x.GtScalar(0.2), zero.AddScalar(7))},
		"aten::log_sigmoid":                      {LogSigmoid(x), neg(softplus(neg(x)))},
		"aten::glu":                              {Glu(x, GluOptions{}), x.Narrow(1, 0, 2).Mul(sigma(x.Narrow(1, 2, 2)))},
		"aten::softmax.int":                      {x.Softmax(1), soft},
		"aten::log_softmax.int":                  {x.LogSoftmax(1), soft.Log()},
		"aten::matmul":                           {batch.MatMul(batch2), batch.Unsqueeze(3).Mul(batch2.Unsqueeze(1)).SumDim([]int{2})},
		"aten::mv":                               {m.Mv(v), m.Mul(v).SumDim(row)},
		"aten::dot":                              {v.Dot(v), v.Square().Sum()},
		"aten::inner":                            {m.Inner(n.T()), m.MatMul(n)},
		"aten::outer":                            {w.Outer(v), w.Unsqueeze(1).Mul(v)},
		"aten::kron":                             {m.Kron(w.Unsqueeze(0)), m.Unsqueeze(2).Mul(w).Reshape(3, 15)},
		"aten::addmm":                            {x.Addmm(m, n, AddmmOptions{Beta: 2, Alpha: 3}), x.MulScalar(2).Add(m.MatMul(n).MulScalar(3))},
		"aten::addmv":                            {w.Addmv(m, v, AddmvOptions{Beta: 2, Alpha: 3}), w.MulScalar(2).Add(m.MatMul(v).MulScalar(3))},
		"aten::baddbmm":                          {x.Baddbmm(batch, batch2, BaddbmmOptions{Beta: 2}), x.MulScalar(2).Add(batch.MatMul(batch2))},
		"aten::addbmm":                           {x.Addbmm(batch, batch2, AddbmmOptions{Alpha: 2}), x.Add(batch.MatMul(batch2).SumDim([]int{0}).MulScalar(2))},
		"aten::linear":                           {Linear(x, square, LinearOptions{Bias: square.Select(0, 0)}), x.MatMul(square.T()).Add(square.Select(0, 0))},
		"aten::bilinear":                         {Bilinear(w, v, rand(2, 3, 5).MulScalar(0).AddScalar(2), BilinearOptions{}), w.Sum().Mul(v.Sum()).MulScalar(2).Expand(2)},
		"aten::einsum":                           {Einsum("ik,kj->ij", []*Tensor{m, n}), m.MatMul(n)},
		"aten::scaled_dot_product_attention":     {ScaledDotProductAttention(query, key, value), query.MatMul(key.MT()).DivScalar(2).Softmax(-1).MatMul(value)},
		"aten::linalg_vector_norm":               {LinalgVectorNorm(x, LinalgVectorNormOptions{Ord: 3}), x.Abs().PowScalar(3).Sum().PowScalar(1. / 3)},
		"aten::linalg_slogdet":                   {sign.Mul(logabsdet.Exp()), LinalgDet(spd)},
		"aten::linalg_inv":                       {LinalgInv(spd).MatMul(spd), Eye(4, f64)},
		"aten::linalg_solve":                     {spd.MatMul(LinalgSolve(spd, n.Narrow(0, 0, 4))), n.Narrow(0, 0, 4)},
		"aten::linalg_pinv.atol_rtol_float":      {m.MatMul(LinalgPinv(m)).MatMul(m), m},
		"aten::linalg_cholesky":                  {chol.MatMul(chol.T()), spd},
		"aten::linalg_qr":                        {q.MatMul(r), m},
		"aten::linalg_svd":                       {u.Mul(s).MatMul(vh), m},
		"aten::linalg_eigh":                      {spd.MatMul(evecs), evecs.Mul(evals)},
		"aten::logsumexp":                        {x.Logsumexp(row), e(x).SumDim(row).Log()},
		"aten::std.correction":                   {x.Std(StdOptions{Correction: 0, Dim: row, KeepDim: true}), vary.Sqrt()},
		"aten::var.correction":                   {x.Var(), x.Sub(mean(x)).Square().Sum().DivScalar(11)},
		"aten::norm.Scalar":                      {x.Norm(), x.Square().Sum().Sqrt()},
		"aten::cov":                              {x.Cov(), x.Sub(mu).MatMul(x.Sub(mu).T()).DivScalar(3)},
		"aten::cdist":                            {Cdist(x, y), x.Unsqueeze(1).Sub(y).Square().SumDim([]int{2}).Sqrt()},
		"aten::cosine_similarity":                {CosineSimilarity(x, y), x.Mul(y).SumDim(row).Div(x.Square().SumDim(row).Mul(y.Square().SumDim(row)).Sqrt())},
		"aten::logcumsumexp":                     {x.Logcumsumexp(1), e(x).Cumsum(1).Log()},
		"aten::diff":                             {x.Diff(), x.Narrow(1, 1, 3).Sub(x.Narrow(1, 0, 3))},
		"aten::polar":                            {Polar(y, x), Complex(y.Mul(x.Cos()), y.Mul(x.Sin()))},
		"aten::layer_norm":                       {LayerNorm(x, []int{4}, LayerNormOptions{Eps: Some(0.1)}), x.Sub(mu).Div(vary.AddScalar(0.1).Sqrt())},
		"aten::rms_norm":                         {RmsNorm(x, []int{4}, RmsNormOptions{Eps: Some(0.1)}), x.Div(x.Square().SumDim(row, keep).DivScalar(4).AddScalar(0.1).Sqrt())},
		"aten::rnn_tanh_cell":                    {RnnTanhCell(x, h, wih, whh), x.MatMul(wih.T()).Add(h.MatMul(whh.T())).Tanh()},
		"aten::cross_entropy_loss":               {CrossEntropyLoss(x, classes), neg(mean(soft.Log().Gather(1, classes.Unsqueeze(1))))},
		"aten::mse_loss":                         {MseLoss(x, y), mean(x.Sub(y).Square())},
		"aten::l1_loss":                          {L1Loss(x, y), mean(d)},
		"aten::smooth_l1_loss":                   {SmoothL1Loss(x, y, SmoothL1LossOptions{Beta: Some(0.5)}), mean(d.Square().Where(d.LtScalar(0.5), d.SubScalar(0.25)))},
		"aten::huber_loss":                       {HuberLoss(x, y, HuberLossOptions{Delta: Some(0.5)}), mean(d.Square().DivScalar(2).Where(d.LtScalar(0.5), d.SubScalar(0.25).MulScalar(0.5)))},
		"aten::binary_cross_entropy":             {BinaryCrossEntropy(y, z), neg(mean(z.Mul(y.Log()).Add(one.Sub(z).Mul(one.Sub(y).Log()))))},
		"aten::binary_cross_entropy_with_logits": {BinaryCrossEntropyWithLogits(x, z), neg(mean(z.Mul(sigma(x).Log()).Add(one.Sub(z).Mul(one.Sub(sigma(x)).Log()))))},
		"aten::kl_div":                           {KlDiv(x, z), mean(z.Mul(z.Log().Sub(x)))},
		"aten::poisson_nll_loss":                 {PoissonNllLoss(x, z, true, false, 0, ReductionMean), mean(e(x).Sub(z.Mul(x)))},
		"aten::soft_margin_loss":                 {SoftMarginLoss(x, y.Sign()), mean(softplus(neg(x)))},
		"aten::margin_ranking_loss":              {MarginRankingLoss(x, y, one, MarginRankingLossOptions{Margin: 0.1}), mean(neg(x.Sub(y)).AddScalar(0.1).ClampMin(0))},
		"aten::hann_window":                      {HannWindow(8, f64), Arange(8, f64).MulScalar(math.Pi / 8).Sin().Square()},
		"aten::hamming_window":                   {HammingWindow(8, f64), Arange(8, f64).MulScalar(math.Pi / 4).Cos().MulScalar(-0.46).AddScalar(0.54)},
		"aten::linspace":                         {Linspace(1, 3, 5, f64), Arange(5, f64).MulScalar(0.5).AddScalar(1)},
		"aten::logspace":                         {Logspace(1, 3, 5, LogspaceOptions{DType: Float64}), e(Arange(5, f64).MulScalar(0.5).AddScalar(1).MulScalar(math.Ln10))},
		"aten::fft_ifft":                         {Real(FftIfft(FftFft(x))), x},
		"aten::fft_rfft":                         {FftRfft(x), FftFft(x).Narrow(1, 0, 3)},
	}
}

func TestEquations(t *testing.T) {
	require.NoError(t, Load())
	schemas, _ := documented(t)
	known := map[string]bool{}
	for _, s := range schemas {
		known[s[:strings.IndexByte(s, '(')]] = true
	}
	ManualSeed(1)
	Scope(func() {
		all := equations()
		require.Greater(t, len(all), 100)
		for name, pair := range all {
			require.True(t, known[name], "%s is not documented", name)
			got, want := pair[0], pair[1]
			require.Equal(t, want.Shape(), got.Shape(), name)
			require.True(t, got.Allclose(want.ToDType(got.DType()), AllcloseOptions{Rtol: Some(1e-9), Atol: Some(1e-9)}),
				"%s: got %v, its equation gives %v", name, got, want)
		}
	})
}
