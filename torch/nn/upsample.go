package nn

import (
	"fmt"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch"
)

// InterpolateOptions say how Interpolate and NewUpsample resample: one of Size and ScaleFactor has to be set.
type InterpolateOptions struct {
	Size                 Size      // of the spatial dimensions
	ScaleFactor          []float64 // of the spatial dimensions; one for all or one for each
	Mode                 string    // "nearest" (the default), "nearest-exact", "linear", "bilinear", "bicubic", "trilinear", "lanczos", "area"
	AlignCorners         bool      // of the modes that end in "linear" and of "bicubic": the centres of the corner pixels stay
	RecomputeScaleFactor bool      // the factors are those of the sizes, rounded down
	Antialias            bool      // of "bilinear", "bicubic" and "lanczos", for scaling down
}

// resampler is an operator with its sizes and factors, either of which is nil.
type resampler func(x *torch.Tensor, size []int, align bool, scale []float64) *torch.Tensor

func nearest(op func(*torch.Tensor, []int, []float64) *torch.Tensor) resampler {
	return func(x *torch.Tensor, size []int, _ bool, scale []float64) *torch.Tensor { return op(x, size, scale) }
}

func area(op func(*torch.Tensor, ...int) *torch.Tensor) resampler {
	return func(x *torch.Tensor, size []int, _ bool, _ []float64) *torch.Tensor { return op(x, size...) }
}

// resamplers are the operators by mode and number of dimensions; " aa" is with anti-aliasing.
var resamplers = map[string]map[int]resampler{
	"nearest": {3: nearest(torch.UpsampleNearest1dVec), 4: nearest(torch.UpsampleNearest2dVec), 5: nearest(torch.UpsampleNearest3dVec)},
	"nearest-exact": {3: nearest(torch.Internal.UpsampleNearestExact1dVec), 4: nearest(torch.Internal.UpsampleNearestExact2dVec),
		5: nearest(torch.Internal.UpsampleNearestExact3dVec)},
	"area":        {3: area(torch.AdaptiveAvgPool1d), 4: area(torch.AdaptiveAvgPool2d), 5: area(torch.AdaptiveAvgPool3d)},
	"linear":      {3: torch.UpsampleLinear1dVec},
	"bilinear":    {4: torch.UpsampleBilinear2dVec},
	"trilinear":   {5: torch.UpsampleTrilinear3dVec},
	"bicubic":     {4: torch.UpsampleBicubic2dVec},
	"bilinear aa": {4: torch.Internal.UpsampleBilinear2dAaVec},
	"bicubic aa":  {4: torch.Internal.UpsampleBicubic2dAaVec},
	"lanczos aa":  {4: torch.Internal.UpsampleLanczos2dAaVec},
}

// Interpolate resamples the spatial dimensions of (B, C, L), (B, C, H, W) or (B, C, D, H, W)
// (torch.nn.functional.interpolate).
func Interpolate(x *torch.Tensor, o InterpolateOptions) *torch.Tensor {
	const op = "interpolate"
	shape := x.Shape()
	dims := len(shape) - 2
	key := o.mode()
	if o.Antialias {
		key += " aa"
	}
	f := resamplers[key][len(shape)]
	if f == nil {
		fail(op, "no mode %q for a %dD input", key, len(shape))
	}
	if (o.Size == nil) == (o.ScaleFactor == nil) {
		fail(op, "either size or scale_factor should be defined, and only one of them")
	}
	if o.Size != nil {
		return f(x, sizes(op, "size", o.Size, dims, 1), o.AlignCorners, nil)
	}
	scale := o.ScaleFactor
	if len(scale) == 1 {
		scale = slices.Repeat(scale, dims)
	}
	if len(scale) != dims {
		fail(op, "expected 1 or %d scale factors, got %d", dims, len(scale))
	}
	if !o.RecomputeScaleFactor && o.mode() != "area" {
		return f(x, nil, o.AlignCorners, scale)
	}
	size := make([]int, dims)
	for i := range size {
		size[i] = int(float64(shape[i+2]) * scale[i])
	}
	return f(x, size, o.AlignCorners, nil)
}

func (o InterpolateOptions) mode() string {
	if o.Mode == "" {
		return "nearest"
	}
	return o.Mode
}

// NewUpsample is Interpolate as a layer.
func NewUpsample(o InterpolateOptions) *Func {
	args := "size="
	switch {
	case o.ScaleFactor != nil:
		parts := make([]string, len(o.ScaleFactor))
		for i, f := range o.ScaleFactor {
			parts[i] = number(f)
		}
		args = "scale_factor=" + strings.Join(parts, ", ")
		if len(parts) > 1 {
			args = "scale_factor=(" + strings.Join(parts, ", ") + ")"
		}
	case o.Size != nil:
		args += strings.ReplaceAll(strings.NewReplacer("[", "(", "]", ")").Replace(fmt.Sprint(o.Size)), " ", ", ")
	}
	return function("Upsample", args+", mode='"+o.mode()+"'", func(x *torch.Tensor) *torch.Tensor { return Interpolate(x, o) })
}

// NewUpsamplingNearest2d is NewUpsample with mode "nearest".
func NewUpsamplingNearest2d(o InterpolateOptions) *Func {
	o.Mode = "nearest"
	f := NewUpsample(o)
	f.name = "UpsamplingNearest2d"
	return f
}

// NewUpsamplingBilinear2d is NewUpsample with mode "bilinear" and AlignCorners.
func NewUpsamplingBilinear2d(o InterpolateOptions) *Func {
	o.Mode, o.AlignCorners = "bilinear", true
	f := NewUpsample(o)
	f.name = "UpsamplingBilinear2d"
	return f
}
