package main

// A docEntry documents an operator that people use: a sentence that goes on after the Go name, and the
// equation and shapes, a line each. Formulas use the parameters' names; t is the receiver. Shapes use
// the letters of the package documentation; ... stands for any leading dimensions.
type docEntry struct{ summary, math string }

// docs by the schemas' names.
var docs = map[string]docEntry{
	// Element by element.
	"aten::add.Tensor":         {"adds element by element, with broadcasting", "y = t + alpha · other"},
	"aten::add.Scalar":         {"adds a number to each element", "y = t + alpha · other"},
	"aten::sub.Tensor":         {"subtracts element by element, with broadcasting", "y = t - alpha · other"},
	"aten::sub.Scalar":         {"subtracts a number from each element", "y = t - alpha · other"},
	"aten::mul.Tensor":         {"multiplies element by element, with broadcasting", "y = t · other"},
	"aten::mul.Scalar":         {"multiplies each element by a number", "y = t · other"},
	"aten::div.Tensor":         {"divides element by element, with broadcasting; integers become floats", "y = t / other"},
	"aten::div.Scalar":         {"divides each element by a number; integers become floats", "y = t / other"},
	"aten::div.Tensor_mode":    {"divides element by element and rounds, \"trunc\" towards zero or \"floor\" down", "y = round(t / other)"},
	"aten::pow.Tensor_Tensor":  {"raises to a power, element by element, with broadcasting", "y = t ^ exponent"},
	"aten::pow.Tensor_Scalar":  {"raises each element to a power", "y = t ^ exponent"},
	"aten::pow.Scalar":         {"raises a number to the power of each element", "y = input ^ exponent"},
	"aten::neg":                {"negates", "y = -t"},
	"aten::abs":                {"takes the absolute value", "y = |t|"},
	"aten::exp":                {"is the exponential", "y = eᵗ"},
	"aten::log":                {"is the natural logarithm", "y = ln t"},
	"aten::sqrt":               {"is the square root", "y = √t"},
	"aten::rsqrt":              {"is the reciprocal of the square root", "y = 1 / √t"},
	"aten::square":             {"is the square", "y = t²"},
	"aten::reciprocal":         {"is the reciprocal", "y = 1 / t"},
	"aten::sin":                {"is the sine", "y = sin t"},
	"aten::cos":                {"is the cosine", "y = cos t"},
	"aten::tanh":               {"is the hyperbolic tangent", "y = (eᵗ - e⁻ᵗ) / (eᵗ + e⁻ᵗ)"},
	"aten::sigmoid":            {"is the logistic function", "y = 1 / (1 + e⁻ᵗ)"},
	"aten::erf":                {"is the error function", "y = 2/√π · ∫₀ᵗ exp(-u²) du"},
	"aten::clamp":              {"limits each element to a range", "y = min(max(t, Min), Max); nil is no limit"},
	"aten::maximum":            {"takes the larger of two elements, with broadcasting", "y = max(t, other)"},
	"aten::minimum":            {"takes the smaller of two elements, with broadcasting", "y = min(t, other)"},
	"aten::lerp.Scalar":        {"interpolates", "y = t + weight · (end - t)"},
	"aten::lerp.Tensor":        {"interpolates, with broadcasting", "y = t + weight · (end - t)"},
	"aten::addcmul":            {"adds a product", "y = t + value · tensor1 · tensor2"},
	"aten::addcdiv":            {"adds a quotient", "y = t + value · tensor1 / tensor2"},
	"aten::where.self":         {"takes t where the condition holds, other elsewhere, with broadcasting", "y = condition ? t : other"},
	"aten::where":              {"has the indices where the condition holds, one tensor a dimension", ""},
	"aten::masked_fill.Scalar": {"sets the elements where mask holds, with broadcasting", "y = mask ? value : t"},
	"aten::eq.Tensor":          {"compares element by element, with broadcasting", "y = (t == other), bool"},
	"aten::eq.Scalar":          {"compares each element with a number", "y = (t == other), bool"},
	"aten::ne.Tensor":          {"compares element by element, with broadcasting", "y = (t != other), bool"},
	"aten::lt.Tensor":          {"compares element by element, with broadcasting", "y = (t < other), bool"},
	"aten::le.Tensor":          {"compares element by element, with broadcasting", "y = (t <= other), bool"},
	"aten::gt.Tensor":          {"compares element by element, with broadcasting", "y = (t > other), bool"},
	"aten::ge.Tensor":          {"compares element by element, with broadcasting", "y = (t >= other), bool"},

	// Activations.
	"aten::relu":            {"is the rectified linear unit", "y = max(0, t)"},
	"aten::gelu":            {"is the Gaussian error linear unit; Approximate \"tanh\" is faster", "y = input · Φ(input), Φ the normal distribution function"},
	"aten::silu":            {"is the sigmoid linear unit (swish)", "y = input / (1 + exp(-input))"},
	"aten::leaky_relu":      {"is the leaky rectified linear unit", "y = input > 0 ? input : NegativeSlope · input"},
	"aten::elu":             {"is the exponential linear unit", "y = Scale · (input > 0 ? input : Alpha · (exp(InputScale · input) - 1))"},
	"aten::softplus":        {"is a smooth rectified linear unit", "y = ln(1 + exp(Beta · input)) / Beta; input above Threshold / Beta"},
	"aten::hardtanh":        {"limits each element to a range", "y = min(max(input, MinVal), MaxVal)"},
	"aten::glu":             {"is the gated linear unit over halves a, b of dimension Dim", "y = a · sigmoid(b)\ninput (..., 2H, ...) -> (..., H, ...)"},
	"aten::softmax.int":     {"is the softmax over a dimension", "y[i] = exp(t[i]) / Σⱼ exp(t[j])\nt (..., D, ...) -> (..., D, ...)"},
	"aten::log_softmax.int": {"is the logarithm of the softmax over a dimension", "y[i] = t[i] - ln Σⱼ exp(t[j])\nt (..., D, ...) -> (..., D, ...)"},
	"aten::dropout":         {"zeroes elements with probability p, in training, and scales the others", "y = train ? input · mask / (1 - p) : input"},

	// Products.
	"aten::matmul":                       {"is the matrix product of the last two dimensions, the others broadcast; a vector is a row on the left, a column on the right", "y[..., i, j] = Σₖ t[..., i, k] · other[..., k, j]\nt (..., N, K), other (..., K, M) -> (..., N, M)"},
	"aten::mm":                           {"is the matrix product", "t (N, K), mat2 (K, M) -> (N, M)"},
	"aten::bmm":                          {"is the matrix product for each of a batch", "t (B, N, K), mat2 (B, K, M) -> (B, N, M)"},
	"aten::mv":                           {"is the product of a matrix and a vector", "t (N, K), vec (K) -> (N)"},
	"aten::dot":                          {"is the dot product of two vectors", "y = Σᵢ t[i] · tensor[i]\nt (N), tensor (N) -> ()"},
	"aten::outer":                        {"is the outer product of two vectors", "y[i, j] = t[i] · vec2[j]\nt (N), vec2 (M) -> (N, M)"},
	"aten::addmm":                        {"adds a matrix product", "y = Beta · t + Alpha · mat1 @ mat2\nt broadcasts to (N, M), mat1 (N, K), mat2 (K, M) -> (N, M)"},
	"aten::baddbmm":                      {"adds a matrix product for each of a batch", "y = Beta · t + Alpha · batch1 @ batch2\nt broadcasts to (B, N, M), batch1 (B, N, K), batch2 (B, K, M) -> (B, N, M)"},
	"aten::linear":                       {"is the linear layer", "y = input @ weightᵀ + Bias\ninput (..., C), weight (D, C), Bias (D) -> (..., D)"},
	"aten::bilinear":                     {"is the bilinear layer", "y[k] = input1ᵀ @ weight[k] @ input2 + Bias[k]\ninput1 (..., C), input2 (..., D), weight (E, C, D) -> (..., E)"},
	"aten::einsum":                       {"sums products of elements as the equation says, \"bik,bkj->bij\"", ""},
	"aten::scaled_dot_product_attention": {"is attention, with a fused kernel where there is one", "y = softmax(query @ keyᵀ · scale + AttnMask) @ value, scale = Scale or 1/√D\nquery (B, H, T, D), key (B, H, S, D), value (B, H, S, E) -> (B, H, T, E)"},

	// Reductions.
	"aten::sum":             {"is the sum of all elements", "y = Σ t\nt (...) -> ()"},
	"aten::sum.dim_IntList": {"is the sum over dimensions; nil means all", "t (..., D, ...) -> (..., ...), or (..., 1, ...) with KeepDim"},
	"aten::mean":            {"is the mean of all elements", "y = Σ t / n\nt (...) -> ()"},
	"aten::mean.dim":        {"is the mean over dimensions; nil means all", "t (..., D, ...) -> (..., ...), or (..., 1, ...) with KeepDim"},
	"aten::prod":            {"is the product of all elements", "y = Π t\nt (...) -> ()"},
	"aten::max":             {"is the largest element", "t (...) -> ()"},
	"aten::min":             {"is the smallest element", "t (...) -> ()"},
	"aten::max.dim":         {"has the largest elements along a dimension, and where they are", "t (..., D, ...) -> (..., ...) both, or (..., 1, ...) with KeepDim"},
	"aten::min.dim":         {"has the smallest elements along a dimension, and where they are", "t (..., D, ...) -> (..., ...) both, or (..., 1, ...) with KeepDim"},
	"aten::amax":            {"is the largest element along dimensions", "t (..., D, ...) -> (..., ...), or (..., 1, ...) with KeepDim"},
	"aten::amin":            {"is the smallest element along dimensions", "t (..., D, ...) -> (..., ...), or (..., 1, ...) with KeepDim"},
	"aten::argmax":          {"is where the largest element is, of all elements or along Dim; int64", "t (..., D, ...) -> (..., ...), or (..., 1, ...) with KeepDim"},
	"aten::argmin":          {"is where the smallest element is, of all elements or along Dim; int64", "t (..., D, ...) -> (..., ...), or (..., 1, ...) with KeepDim"},
	"aten::std.correction":  {"is the standard deviation, of all elements or over Dim", "y = √(Σ (t - mean)² / (n - Correction)), Correction 1 unless given"},
	"aten::var.correction":  {"is the variance, of all elements or over Dim", "y = Σ (t - mean)² / (n - Correction), Correction 1 unless given"},
	"aten::norm.Scalar":     {"is the p-norm of all elements", "y = (Σ |t|ᵖ)^(1/p), p = P or 2\nt (...) -> ()"},
	"aten::logsumexp":       {"is the logarithm of the sum of exponentials over dimensions", "y = ln Σⱼ exp(t[j])"},
	"aten::cumsum":          {"is the running sum along a dimension", "y[i] = Σ_{j ≤ i} t[j]"},
	"aten::cumprod":         {"is the running product along a dimension", "y[i] = Π_{j ≤ i} t[j]"},
	"aten::any":             {"tells whether any element is true", "t (...) -> (), bool"},
	"aten::all":             {"tells whether all elements are true", "t (...) -> (), bool"},
	"aten::topk":            {"has the k largest elements along Dim, by default the last, and where they are", "t (..., D) -> (..., k) both"},
	"aten::sort":            {"sorts along Dim, by default the last, and tells where the elements were", "t (..., D) -> (..., D) both"},
	"aten::argsort":         {"has the indices that sort along Dim, by default the last", "t (..., D) -> (..., D)"},
	"aten::unbind.int":      {"has the slices along Dim, views", "t (D, ...) -> D × (...)"},

	// Shapes. Views share their data with t.
	"aten::view":               {"has another shape over the same data; one size may be -1", "t (...) -> (size...), a view"},
	"aten::reshape":            {"has another shape, a view where the strides allow it; one size may be -1", "t (...) -> (shape...)"},
	"aten::flatten.using_ints": {"joins the dimensions from StartDim to EndDim", "t (B, C, H, W) -> (B · C · H · W), or what the options say"},
	"aten::permute":            {"orders the dimensions anew", "t (A, B, C), dims 2, 0, 1 -> (C, A, B), a view"},
	"aten::transpose.int":      {"swaps two dimensions", "t (..., N, ..., M, ...) -> (..., M, ..., N, ...), a view"},
	"aten::t":                  {"is the transpose of a matrix", "t (N, M) -> (M, N), a view"},
	"aten::squeeze":            {"drops all dimensions of size 1", "a view"},
	"aten::squeeze.dim":        {"drops a dimension, if its size is 1", "t (..., 1, ...) -> (..., ...), a view"},
	"aten::unsqueeze":          {"adds a dimension of size 1", "t (..., ...) -> (..., 1, ...), a view"},
	"aten::expand":             {"repeats dimensions of size 1 without copying; -1 keeps a size", "t (1, C), size B, C -> (B, C), a view"},
	"aten::repeat":             {"repeats the tensor along each dimension", "t (N, M), repeats a, b -> (a · N, b · M)"},
	"aten::contiguous":         {"is t with its elements one after the other in memory; t itself where they are", ""},
	"aten::cat":                {"joins tensors along Dim, by default the first", "(A, C), (B, C) -> (A + B, C)"},
	"aten::stack":              {"joins tensors along a new dimension Dim, by default the first", "n × (...) -> (n, ...)"},
	"aten::chunk":              {"splits into that many parts along Dim, views", "t (D, ...) -> chunks × (⌈D / chunks⌉, ...), the last may be smaller"},
	"aten::split.Tensor":       {"splits into parts of a size along Dim, views", "t (D, ...) -> ⌈D / splitSize⌉ × (splitSize, ...), the last may be smaller"},
	"aten::narrow":             {"is the part from start with a length, along a dimension", "t (..., D, ...) -> (..., length, ...), a view"},
	"aten::select.int":         {"is one slice along a dimension", "t (..., D, ...) -> (..., ...), a view"},
	"aten::slice.Tensor":       {"is the part from Start to End in steps, along Dim", "t (..., D, ...) -> (..., ⌈(End - Start) / Step⌉, ...), a view"},
	"aten::index_select":       {"takes slices along a dimension", "y[..., i, ...] = t[..., index[i], ...]\nt (..., D, ...), index (N) -> (..., N, ...)"},
	"aten::gather":             {"takes elements along a dimension", "y[i][j] = t[index[i][j]][j] for dim 0\nt (...), index (...) -> index's shape"},
	"aten::scatter.src":        {"is t with elements of src put along a dimension", "y[index[i][j]][j] = src[i][j] for dim 0"},
	"aten::index.Tensor":       {"takes elements by indices, one tensor a dimension, nil for all of it, as Python's t[i, j]", ""},
	"aten::flip":               {"reverses dimensions", "y[i] = t[D - 1 - i]"},
	"aten::roll":               {"shifts the elements of dimensions, around the end", "y[(i + shift) mod D] = t[i]"},
	"aten::tril":               {"keeps the lower triangle of matrices", "y[..., i, j] = j - i <= Diagonal ? t[..., i, j] : 0"},
	"aten::triu":               {"keeps the upper triangle of matrices", "y[..., i, j] = j - i >= Diagonal ? t[..., i, j] : 0"},
	"aten::clone":              {"is a copy", ""},
	"aten::detach":             {"is t, cut off from the graph of gradients; a view", ""},

	// Factories.
	"aten::zeros":               {"is a tensor of zeros", "-> (size...)"},
	"aten::ones":                {"is a tensor of ones", "-> (size...)"},
	"aten::full":                {"is a tensor of one value", "-> (size...)"},
	"aten::empty.memory_format": {"is a tensor that is not initialised", "-> (size...)"},
	"aten::zeros_like":          {"is a tensor of zeros with input's shape, dtype and device", ""},
	"aten::ones_like":           {"is a tensor of ones with input's shape, dtype and device", ""},
	"aten::empty_like":          {"is a tensor with input's shape, dtype and device that is not initialised", ""},
	"aten::arange":              {"counts from 0 to end, without it", "y[i] = i\n-> (⌈end⌉)"},
	"aten::arange.start":        {"counts from start to end, without it", "y[i] = start + i\n-> (⌈end - start⌉)"},
	"aten::arange.start_step":   {"counts from start to end in steps, without it", "y[i] = start + i · step\n-> (⌈(end - start) / step⌉)"},
	"aten::linspace":            {"has evenly spaced numbers from start to end, with it", "y[i] = start + i · (end - start) / (steps - 1)\n-> (steps)"},
	"aten::eye":                 {"is the identity matrix", "-> (n, n)"},
	"aten::rand":                {"has uniform random numbers from [0, 1)", "-> (size...)"},
	"aten::randn":               {"has random numbers from the normal distribution", "-> (size...)"},
	"aten::randint":             {"has random integers from [0, high); int64 unless DType says otherwise", "-> (size...)"},
	"aten::randperm":            {"is a random order of the integers from 0 to n - 1", "-> (n)"},
	"aten::bernoulli":           {"draws 1 with the probability that each element is, else 0", ""},
	"aten::multinomial":         {"draws indices with probabilities proportional to the last dimension", "t (..., D) -> (..., numSamples), int64"},

	// Layers.
	"aten::embedding":           {"looks rows up", "y = weight[indices]\nweight (V, C), indices (...) -> (..., C)"},
	"aten::layer_norm":          {"normalises over the last dimensions", "y = (input - mean) / √(var + Eps) · Weight + Bias\ninput (..., C), normalizedShape C, Weight (C), Bias (C) -> (..., C)"},
	"aten::rms_norm":            {"normalises by the root of the mean square over the last dimensions", "y = input / √(mean(input²) + Eps) · Weight\ninput (..., C), normalizedShape C, Weight (C) -> (..., C)"},
	"aten::group_norm":          {"normalises over groups of channels", "y = (input - mean) / √(var + Eps) · Weight + Bias\ninput (B, C, ...), Weight (C), Bias (C) -> (B, C, ...)"},
	"aten::batch_norm":          {"normalises each channel over the batch, in training, or by running statistics", "y = (input - mean) / √(var + eps) · weight + bias\ninput (B, C, ...), the others (C) or nil -> (B, C, ...)"},
	"aten::conv1d":              {"convolves", "y[b, o] = Bias[o] + Σᵢ weight[o, i] ⋆ input[b, i]\ninput (B, C, L), weight (O, C / Groups, K), Bias (O) -> (B, O, L')\nL' = ⌊(L + 2 · Padding - Dilation · (K - 1) - 1) / Stride⌋ + 1"},
	"aten::conv2d":              {"convolves", "y[b, o] = Bias[o] + Σᵢ weight[o, i] ⋆ input[b, i]\ninput (B, C, H, W), weight (O, C / Groups, K, K), Bias (O) -> (B, O, H', W')\nH' = ⌊(H + 2 · Padding - Dilation · (K - 1) - 1) / Stride⌋ + 1, and so W'"},
	"aten::max_pool2d":          {"is the largest element of each window", "input (B, C, H, W) -> (B, C, H', W')\nH' = ⌊(H + 2 · Padding - Dilation · (K - 1) - 1) / Stride⌋ + 1, Stride K unless given"},
	"aten::avg_pool2d":          {"is the mean of each window", "input (B, C, H, W) -> (B, C, H', W')\nH' = ⌊(H + 2 · Padding - K) / Stride⌋ + 1, Stride K unless given"},
	"aten::adaptive_avg_pool2d": {"is the mean of windows that give the output size", "input (B, C, H, W), outputSize H', W' -> (B, C, H', W')"},
	"aten::pad":                 {"pads; pad has what to add before and after each dimension, the last one first", "input (..., W), pad l, r -> (..., l + W + r)"},

	// Losses. Reduction: 0 none, 1 mean, 2 sum.
	"aten::cross_entropy_loss":               {"is the cross entropy of logits and classes; Reduction 0 none, 1 mean, 2 sum", "y = -ln softmax(input)[target]\ninput (B, C, ...), target (B, ...) of int64 or (B, C, ...) of probabilities -> () or target's shape"},
	"aten::nll_loss":                         {"is the negative log likelihood; Reduction 0 none, 1 mean, 2 sum", "y = -Weight[target] · input[target]\ninput (B, C), target (B) of int64 -> () or (B)"},
	"aten::mse_loss":                         {"is the mean squared error; Reduction 0 none, 1 mean, 2 sum", "y = mean((input - target)²)"},
	"aten::l1_loss":                          {"is the mean absolute error; Reduction 0 none, 1 mean, 2 sum", "y = mean(|input - target|)"},
	"aten::binary_cross_entropy_with_logits": {"is the cross entropy of logits and binary targets; Reduction 0 none, 1 mean, 2 sum", "y = -mean(Weight · (PosWeight · target · ln σ(input) + (1 - target) · ln(1 - σ(input))))"},
	"aten::kl_div":                           {"is the Kullback-Leibler divergence; Reduction 0 none, 1 mean, 2 sum; input has logarithms", "y = mean(target · (ln target - input))"},
}

// pythonNames are the places of operators that Python has under another name.
var pythonNames = map[string]string{
	"cross_entropy_loss": "torch.nn.functional.cross_entropy",
	"log_sigmoid":        "torch.nn.functional.logsigmoid",
	"nll_loss_nd":        "torch.nn.functional.nll_loss",
	"im2col":             "torch.nn.functional.unfold",
	"col2im":             "torch.nn.functional.fold",
	"numpy_T":            "Tensor.T",
	"matrix_H":           "Tensor.H",
	"pad_sequence":       "torch.nn.utils.rnn.pad_sequence",
}

// inFunctional are the operators of PyTorch's C++ module nn that torch.nn.functional has by that name.
var inFunctional = set(`adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d avg_pool2d
	avg_pool3d binary_cross_entropy elu elu_ fractional_max_pool2d fractional_max_pool3d gelu glu hardsigmoid hardswish
	hardtanh hardtanh_ huber_loss l1_loss leaky_relu leaky_relu_ linear max_pool2d_with_indices max_pool3d_with_indices
	max_unpool2d max_unpool3d mish mse_loss multi_margin_loss multilabel_margin_loss nll_loss one_hot pad relu6
	scaled_dot_product_attention silu smooth_l1_loss soft_margin_loss softplus softshrink`)

// onlyOps are operators that native_functions.yaml offers to Python, but Python has in torch.ops alone.
var onlyOps = set(`alias convolution_overrideable copy copy_sparse_to_sparse_ fake_quantize_per_channel_affine_cachemask
	fake_quantize_per_tensor_affine_cachemask index lift lift_fresh lift_fresh_copy nested_to_padded_tensor nonzero_numpy
	normal_functional slice sparse_sampled_addmm unique_dim unique_dim_consecutive`)
