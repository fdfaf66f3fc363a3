package blocks

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// RoPE are the settings of rotary position embeddings: a config's rope_parameters and the sizes they go with.
// InvFreq and AttentionFactor are functions of them alone (transformers' ROPE_INIT_FUNCTIONS).
type RoPE struct {
	Type          string  // rope_type: a key of ropeTypes
	Theta         float64 // rope_theta
	HeadDim       int     // D
	Positions     int     // max_position_embeddings
	PartialRotary float64 // partial_rotary_factor: the part of a head that is rotated; default: 1

	Factor          float64            // 0: unset; then yarn and longrope take Positions / Original
	Original        float64            // original_max_position_embeddings, of yarn, longrope and llama3
	AttentionFactor torch.Opt[float64] // attention_factor, of yarn and longrope
	BetaFast        float64            // of yarn; default: 32
	BetaSlow        float64            // of yarn; default: 1
	MScale          float64            // mscale, of yarn; 0: unset
	MScaleAllDim    float64            // mscale_all_dim, of yarn; 0: unset
	NoTruncate      bool               // yarn with truncate false
	ShortFactor     []float64          // of longrope (R/2)
	LongFactor      []float64          // of longrope (R/2)
	LowFreqFactor   float64            // of llama3
	HighFreqFactor  float64            // of llama3
}

// DefaultTheta is rope_theta where a config has none.
const DefaultTheta = 10_000.0

// ropeTypes are the types with the keys that each needs and may have besides rope_theta and
// partial_rotary_factor.
var ropeTypes = map[string]struct{ required, optional string }{
	"default":      {},
	"linear":       {required: "factor"},
	"dynamic":      {required: "factor"},
	"proportional": {optional: "factor"},
	"yarn": {required: "factor original_max_position_embeddings",
		optional: "attention_factor beta_fast beta_slow mscale mscale_all_dim truncate"},
	"longrope": {required: "short_factor long_factor original_max_position_embeddings",
		optional: "attention_factor factor"},
	"llama3": {required: "factor original_max_position_embeddings low_freq_factor high_freq_factor"},
}

// StandardizeRoPE brings a config's rope_parameters into today's form, which it returns: rope_scaling, rope_theta
// and partial_rotary_factor of older files move into it (they are taken from base, so that they aren't saved
// beside it), and what follows from other values is filled in. params may be nil and isn't changed.
func StandardizeRoPE(base *pretrained.ConfigBase, params map[string]any, positions int) (map[string]any, error) {
	params = maps.Clone(params)
	if _, fromFile := base.Extra("rope_parameters"); params == nil || fromFile {
		old, _ := base.Extra("rope_scaling")
		switch old := old.(type) {
		case nil:
		case map[string]any:
			if len(old) > 0 {
				params = maps.Clone(old)
			}
		default:
			return nil, ropeError("rope_scaling", "an object", old)
		}
	}
	if params == nil {
		params = map[string]any{}
	}
	setDefault := func(key string, value any) {
		if _, ok := params[key]; !ok {
			params[key] = value
		}
	}
	theta, ok := base.Extra("rope_theta")
	if !ok {
		theta = DefaultTheta
	}
	setDefault("rope_theta", theta)
	if partial, ok := base.Extra("partial_rotary_factor"); ok && partial != nil {
		setDefault("partial_rotary_factor", partial)
	}
	if t, ok := params["type"]; ok { // its name in old files
		setDefault("rope_type", t)
	}
	setDefault("rope_type", "default")
	switch params["rope_type"] {
	case "llama3", "yarn", "longrope":
		const key = "original_max_position_embeddings"
		if v, ok := base.Extra(key); ok { // Phi-3's place for it
			params[key] = v
		}
		setDefault(key, int64(positions))
	}
	for _, key := range []string{"rope_scaling", "rope_theta", "partial_rotary_factor"} {
		base.Drop(key)
	}
	return params, nil
}

// ParseRoPE reads standardized rope_parameters for heads of size headDim. A key of the type that is missing or
// no number that can be computed with is an error; keys that the type doesn't have, or values that
// transformers warns of, become warnings of base.
func ParseRoPE(base *pretrained.ConfigBase, params map[string]any, headDim, positions int) (RoPE, error) {
	p := ropeParams{params: params}
	r := RoPE{HeadDim: headDim, Positions: positions}
	r.Type, _ = params["rope_type"].(string)
	keys, ok := ropeTypes[r.Type]
	if !ok {
		return r, ropeError("rope_parameters.rope_type", "one of "+strings.Join(slices.Sorted(maps.Keys(ropeTypes)), ", "), params["rope_type"])
	}
	known := strings.Fields("rope_type type rope_theta partial_rotary_factor " + keys.required + " " + keys.optional)
	missing := slices.DeleteFunc(strings.Fields("rope_theta "+keys.required), func(key string) bool { _, ok := params[key]; return ok })
	if len(missing) > 0 {
		return r, &pretrained.Error{Class: pretrained.ErrBadConfig, Detail: fmt.Sprintf("rope_parameters of rope_type %q lack %s", r.Type, strings.Join(missing, ", "))}
	}
	layerTypes, _ := base.Extra("layer_types")
	for _, key := range slices.Sorted(maps.Keys(params)) {
		if list, _ := layerTypes.([]any); slices.Contains(list, any(key)) {
			return r, &pretrained.Error{Class: pretrained.ErrUnsupported, Detail: "rope_parameters by layer type", Actual: key}
		}
		if !slices.Contains(known, key) {
			base.Warn("rope_parameters.%s means nothing to rope_type %q", key, r.Type)
		}
	}
	r.Theta = p.positive("rope_theta")
	r.PartialRotary = 1
	if p.has("partial_rotary_factor") {
		r.PartialRotary = p.number("partial_rotary_factor", 0, 1)
	}
	read := map[string]func(){
		"factor":                           func() { r.Factor = p.positive("factor") },
		"original_max_position_embeddings": func() { r.Original = p.positive("original_max_position_embeddings") },
		"attention_factor":                 func() { r.AttentionFactor = torch.Some(p.number("attention_factor", 0, math.MaxFloat32)) },
		"beta_fast":                        func() { r.BetaFast = p.number("beta_fast", 0, math.MaxFloat32) },
		"beta_slow":                        func() { r.BetaSlow = p.number("beta_slow", 0, math.MaxFloat32) },
		"mscale":                           func() { r.MScale = p.number("mscale", 0, math.MaxFloat32) },
		"mscale_all_dim":                   func() { r.MScaleAllDim = p.number("mscale_all_dim", 0, math.MaxFloat32) },
		"truncate":                         func() { r.NoTruncate = !p.boolean("truncate") },
		"short_factor":                     func() { r.ShortFactor = p.list("short_factor") },
		"long_factor":                      func() { r.LongFactor = p.list("long_factor") },
		"low_freq_factor":                  func() { r.LowFreqFactor = p.positive("low_freq_factor") },
		"high_freq_factor":                 func() { r.HighFreqFactor = p.positive("high_freq_factor") },
	}
	required := strings.Fields(keys.required)
	for _, key := range append(required, strings.Fields(keys.optional)...) {
		if p.has(key) || slices.Contains(required, key) && !(key == "factor" && r.Type == "yarn") { // yarn's may be null
			read[key]()
		}
	}
	if p.err != nil {
		return r, p.err
	}
	if r.Factor != 0 && r.Factor < 1 {
		base.Warn("rope_parameters.factor should be 1 or more, not %v", r.Factor)
	}
	return r, r.validate(params)
}

// validate refuses values that the formulas divide by zero with, or whose shapes don't fit.
func (r RoPE) validate(params map[string]any) error {
	bad := func(key, expected string) error { return ropeError("rope_parameters."+key, expected, params[key]) }
	switch {
	case r.HeadDim%2 != 0 && r.Dim() == r.HeadDim:
		return &pretrained.Error{Class: pretrained.ErrUnsupported, Detail: "rotary positions", Expected: "heads of an even size",
			Actual: fmt.Sprint(r.HeadDim)}
	case r.Dim() == 0:
		return bad("partial_rotary_factor", "a part of a head")
	case r.Type == "dynamic" && r.Dim() <= 2:
		return &pretrained.Error{Class: pretrained.ErrBadConfig, Detail: "rope_type dynamic", Expected: "more than 2 rotated dimensions", Actual: fmt.Sprint(r.Dim())}
	case r.Type == "yarn" && r.Theta == 1:
		return bad("rope_theta", "not 1, whose logarithm divides")
	case r.Type == "llama3" && r.LowFreqFactor == r.HighFreqFactor:
		return bad("high_freq_factor", "more than low_freq_factor")
	case r.Type == "longrope" && len(r.ShortFactor) != (r.Dim()+1)/2:
		return bad("short_factor", fmt.Sprintf("a list of %d numbers", (r.Dim()+1)/2))
	case r.Type == "longrope" && len(r.LongFactor) != (r.Dim()+1)/2:
		return bad("long_factor", fmt.Sprintf("a list of %d numbers", (r.Dim()+1)/2))
	}
	if f := r.Attention(); math.IsNaN(f) || math.IsInf(f, 0) {
		return bad("original_max_position_embeddings", "a length that gives a finite attention factor")
	}
	return nil
}

// Dim is the number of rotated dimensions of a head, R.
func (r RoPE) Dim() int {
	if r.Type == "proportional" { // the others turn by zero
		return r.HeadDim
	}
	return int(float64(r.HeadDim) * r.PartialRotary)
}

// factor is Factor, or what the lengths say.
func (r RoPE) factor() float64 {
	if r.Factor == 0 && r.Original != 0 {
		return float64(r.Positions) / r.Original
	}
	return r.Factor
}

// Attention is the factor on cosine and sine.
func (r RoPE) Attention() float64 {
	if f, ok := r.AttentionFactor.Get(); ok {
		return f
	}
	f := r.factor()
	switch r.Type {
	case "yarn":
		mscale := func(m float64) float64 {
			if f <= 1 {
				return 1
			}
			return 0.1*m*math.Log(f) + 1
		}
		if r.MScale != 0 && r.MScaleAllDim != 0 {
			return mscale(r.MScale) / mscale(r.MScaleAllDim)
		}
		return mscale(1)
	case "longrope":
		if f > 1 {
			return math.Sqrt(1 + math.Log(f)/math.Log(r.Original))
		}
	}
	return 1
}

// InvFreq are the angles by which one position turns each pair of dimensions, float32 (R/2) on the CPU. seqLen is
// the length that dynamic and longrope adapt to; 0 is none, at which a model starts. It computes with libtorch's
// kernels, whose power function Go's is not.
func (r RoPE) InvFreq(seqLen int) *torch.Tensor {
	return torch.ScopeOf(func() *torch.Tensor {
		switch r.Type {
		case "linear":
			return inverse(r.powers(r.Theta)).DivScalar(r.Factor)
		case "dynamic":
			return r.dynamic(seqLen)
		case "proportional":
			return r.proportional()
		case "yarn":
			return r.yarn()
		case "longrope":
			factors := r.ShortFactor
			if float64(seqLen) > r.Original {
				factors = r.LongFactor
			}
			return inverse(torch.FromSlice(factors).ToDType(torch.Float32).Mul(r.powers(r.Theta)))
		case "llama3":
			return r.llama3()
		}
		return inverse(r.powers(r.Theta))
	})
}

// exponents are 0, 2, 4, … up to n, divided by dim.
func exponents(n, dim int) *torch.Tensor {
	return torch.ArangeStartStep(0, n, torch.ArangeStartStepOptions{Step: 2}).ToDType(torch.Float32).DivScalar(dim)
}

// powers are base^(2i/R).
func (r RoPE) powers(base float64) *torch.Tensor {
	return torch.PowScalarTensor(base, exponents(r.Dim(), r.Dim()))
}

// inverse is 1/x as Python divides a number by a tensor.
func inverse(x *torch.Tensor) *torch.Tensor { return x.Reciprocal() }

// dynamic is the NTK-aware scaling by length: the base grows with it. At the start it is computed in float64,
// later in float32, as Python does with a number and with a tensor.
func (r RoPE) dynamic(seqLen int) *torch.Tensor {
	dim, positions := float64(r.Dim()), r.Positions
	exponent := dim / (dim - 2)
	if seqLen == 0 {
		p := float64(positions)
		return inverse(r.powers(r.Theta * math.Pow(r.Factor*p/p-(r.Factor-1), exponent)))
	}
	base := torch.FromSlice([]int64{int64(max(seqLen, positions))}).View().MulScalar(r.Factor).DivScalar(positions).
		SubScalar(r.Factor - 1).PowScalar(exponent).MulScalar(r.Theta)
	return inverse(base.Pow(exponents(r.Dim(), r.Dim())))
}

// proportional turns the first part of the pairs, the rest not at all.
func (r RoPE) proportional() *torch.Tensor {
	turned := int(math.Floor(r.PartialRotary * float64(r.HeadDim) / 2))
	freq := inverse(torch.PowScalarTensor(r.Theta, exponents(2*turned, r.HeadDim)))
	if still := r.HeadDim/2 - turned; still > 0 {
		freq = torch.Cat([]*torch.Tensor{freq, torch.Zeros([]int{still})})
	}
	if r.Factor != 0 {
		freq = freq.DivScalar(r.Factor)
	}
	return freq
}

// yarn interpolates the slow pairs, keeps the fast ones, and blends between.
//
// Source: Peng et al., YaRN: Efficient Context Window Extension of Large Language Models, https://arxiv.org/abs/2309.00071.
func (r RoPE) yarn() *torch.Tensor {
	fast, slow := r.BetaFast, r.BetaSlow
	if fast == 0 {
		fast = 32
	}
	if slow == 0 {
		slow = 1
	}
	dim := float64(r.Dim())
	pair := func(rotations float64) float64 { // that turns so often over the original length
		return dim * math.Log(r.Original/(rotations*2*math.Pi)) / (2 * math.Log(r.Theta))
	}
	low, high := pair(fast), pair(slow)
	if !r.NoTruncate {
		low, high = math.Floor(low), math.Ceil(high)
	}
	low, high = max(low, 0), min(high, dim-1)
	if low == high {
		high += 0.001
	}
	ramp := torch.Arange(r.Dim()/2, torch.TensorOptions{DType: torch.Float32}).SubScalar(low).DivScalar(high - low).
		Clamp(torch.ClampOptions{Min: 0, Max: 1})
	kept := rsub(ramp)
	powers := r.powers(r.Theta)
	return inverse(powers.MulScalar(r.factor())).Mul(rsub(kept)).Add(inverse(powers).Mul(kept))
}

// rsub is 1 - x.
func rsub(x *torch.Tensor) *torch.Tensor { return x.Neg().AddScalar(1) }

// llama3 divides the slow pairs by factor, keeps the fast ones, and blends between.
func (r RoPE) llama3() *torch.Tensor {
	freq := inverse(r.powers(r.Theta))
	wave := inverse(freq).MulScalar(2 * math.Pi)
	slow, fast := wave.GtScalar(r.Original/r.LowFreqFactor), wave.LtScalar(r.Original/r.HighFreqFactor)
	scaled := freq.DivScalar(r.Factor).Where(slow, freq)
	smooth := inverse(wave).MulScalar(r.Original).SubScalar(r.LowFreqFactor).DivScalar(r.HighFreqFactor - r.LowFreqFactor)
	blend := rsub(smooth).Mul(scaled).DivScalar(r.Factor).Add(smooth.Mul(scaled))
	return blend.Where(slow.LogicalOr(fast).LogicalNot(), scaled)
}

// ropeParams reads values of rope_parameters and keeps the first error.
type ropeParams struct {
	params map[string]any
	err    error
}

func (p *ropeParams) has(key string) bool { return p.params[key] != nil }

func (p *ropeParams) bad(key, expected string) {
	if p.err == nil {
		p.err = ropeError("rope_parameters."+key, expected, p.params[key])
	}
}

func (p *ropeParams) number(key string, lo, hi float64) float64 {
	x, ok := number(p.params[key])
	if !ok || !(x >= lo && x <= hi) {
		p.bad(key, "a number")
		return 1
	}
	return x
}

func (p *ropeParams) positive(key string) float64 {
	return p.number(key, math.SmallestNonzeroFloat32, math.MaxFloat32)
}

func (p *ropeParams) boolean(key string) bool {
	b, ok := p.params[key].(bool)
	if !ok {
		p.bad(key, "true or false")
	}
	return b
}

func (p *ropeParams) list(key string) (xs []float64) {
	items, _ := p.params[key].([]any)
	for _, item := range items {
		x, ok := number(item)
		if !ok || !(x > 0 && x <= math.MaxFloat32) {
			p.bad(key, "a list of positive numbers")
			return nil
		}
		xs = append(xs, x)
	}
	return xs
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case int64:
		return float64(v), true
	case int:
		return float64(v), true
	}
	return 0, false
}

func ropeError(key, expected string, actual any) error {
	return &pretrained.Error{Class: pretrained.ErrBadConfig, Detail: key, Expected: expected, Actual: pretrained.Describe(actual)}
}
