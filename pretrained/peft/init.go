package peft

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
	"github.com/torchgo/torchgo/torch/nn/nninit"
)

// made are the tensors of a new adapter in one layer.
type made struct {
	setting     *setting
	a, b, bias  *torch.Tensor
	magnitude   *torch.Tensor
	scale       *torch.Tensor // ia3_l
	isEmbedding bool
}

// add puts an adapter on the targets. It fails before the model is changed.
func (a *Adapters) add(c *Config, name string, t *Targets) (err error) {
	c = c.Clone()
	c.TargetModules, c.FeedforwardModules = t.TargetModules, t.FeedforwardModules
	c.RankPattern, c.AlphaPattern = t.RankPattern, t.AlphaPattern
	c.Warnings = slices.Concat(c.Warnings, t.Warnings)
	for _, target := range t.Layers {
		if err := a.checkTarget(c, target); err != nil {
			return err
		}
	}
	for _, target := range t.Save {
		if err := a.checkSave(target); err != nil {
			return err
		}
	}
	all := make([]made, len(t.Layers))
	defer func() {
		if err != nil {
			for _, m := range all {
				m.close()
			}
		}
	}()
	err = torch.TryDo(func() {
		torch.Scope(func() {
			torch.NoGrad(func() {
				for i, target := range t.Layers {
					all[i] = a.make(c, name, target)
				}
			})
		})
	})
	if err != nil {
		return &fileerr.Error{Detail: "adding adapter " + name, Err: err}
	}
	a.names = append(a.names, name)
	a.config[name] = c
	a.freezeModel()
	for i, target := range t.Layers {
		s, _ := siteOf(target.Module)
		l := s.layer()
		if l == nil {
			l = s.over(a.training())
			s.wrap(l)
		}
		l.of().install(all[i])
	}
	for _, target := range t.Save {
		a.save(target.Path, target.Module, name)
	}
	a.trainBiases(c)
	if len(a.names) == 1 {
		a.active = []string{name}
	}
	a.apply(!c.InferenceMode && !a.off)
	return nil
}

func (m made) close() {
	for _, t := range []*torch.Tensor{m.a, m.b, m.bias, m.magnitude, m.scale} {
		if t != nil {
			t.Close()
		}
	}
}

func (f *factors) install(m made) {
	name := m.setting.name
	switch {
	case m.scale != nil:
		f.IA3.Set(name, m.scale)
	case m.isEmbedding:
		f.EmbedA.Set(name, m.a)
		f.EmbedB.Set(name, m.b)
	default:
		f.A.Set(name, &factor{W: m.a})
		f.B.Set(name, &factor{W: m.b, Bias: m.bias})
	}
	if m.magnitude != nil {
		f.Magnitude.Set(name, m.magnitude)
	}
	f.add(m.setting)
}

// checkTarget refuses what an adapter can't be put on.
func (a *Adapters) checkTarget(c *Config, t Target) error {
	unsupported := func(detail, actual string) error {
		return &fileerr.Error{Class: fileerr.ErrUnsupported, Tensor: t.Path, Detail: detail, Actual: actual}
	}
	s, ok := siteOf(t.Module)
	if !ok {
		return unsupported("an adapter on this module", fmt.Sprintf("a %T", t.Module))
	}
	for path := range a.saved {
		if t.Path == path || strings.HasPrefix(t.Path, path+".") {
			return unsupported("an adapter on a module that another one has a copy of (modules_to_save)", path)
		}
	}
	g := (*nn.ConvGeometry)(nil)
	if v := convOf(t.Module); v != nil {
		g = &v.Geometry
	}
	_, isEmbedding := t.Module.(*nn.Embedding)
	slot, plain := stored(s.weight)
	if c.PeftType == IA3 {
		switch {
		case isEmbedding, g != nil && len(g.Kernel) == 1:
			return unsupported("IA³ on this module", fmt.Sprintf("a %T", t.Module))
		case s.layer() != nil:
			for other, set := range s.layer().of().settings {
				if set.feedforward != t.Feedforward {
					return unsupported("adapters of which one scales the inputs and one the outputs", other)
				}
			}
		}
		return nil
	}
	switch {
	case a.target > 0 && t.R > a.target:
		return badArgument("r of "+t.Path, fmt.Sprintf("at most the rank %d that hot-swapping was enabled for", a.target), fmt.Sprint(t.R))
	case t.R <= 0:
		return badArgument("r of "+t.Path, "a positive integer", fmt.Sprint(t.R))
	case c.LoraBias && isEmbedding:
		return unsupported("lora_bias on an embedding", "")
	case g != nil && t.R%g.Groups != 0:
		return badArgument("r of "+t.Path, fmt.Sprintf("a multiple of its %d groups", g.Groups), fmt.Sprint(t.R))
	case g != nil && c.UseDoRA && g.Groups > 1:
		return unsupported("use_dora on a convolution with groups", fmt.Sprint(g.Groups))
	case c.UseDoRA && !plain:
		return unsupported("use_dora on a weight that is not one tensor", fmt.Sprintf("a %T", s.weight))
	case c.UseDoRA && slot.Tensor().Device() == torch.Meta && a.info.Device != torch.Meta:
		return unsupported("use_dora on a weight that is offloaded", "")
	}
	return nil
}

func (a *Adapters) checkSave(t Target) error {
	for path, l := range a.layers() {
		if path == t.Path || strings.HasPrefix(path, t.Path+".") {
			return &fileerr.Error{Class: fileerr.ErrUnsupported, Tensor: t.Path, Detail: "modules_to_save", Actual: fmt.Sprintf("a %T with adapters", l)}
		}
	}
	slots := slotsOf(t.Module)
	if len(slots) == 0 {
		return &fileerr.Error{Class: fileerr.ErrUnsupported, Tensor: t.Path, Detail: "modules_to_save", Actual: "a module without tensors"}
	}
	for _, s := range slots {
		if s.Tensor().Device() == torch.Meta && a.info.Device != torch.Meta {
			return &fileerr.Error{Class: fileerr.ErrUnsupported, Tensor: join(t.Path, s.Name), Detail: "modules_to_save", Actual: "a weight that is offloaded"}
		}
	}
	return nil
}

// make makes the tensors of an adapter in one layer with their first values: on the CPU in float32, then as the weight
// is, so that one seed gives peft's numbers.
func (a *Adapters) make(c *Config, name string, t Target) (m made) {
	s, _ := siteOf(t.Module)
	l := s.layer()
	if l == nil {
		l = s.over(true)
	}
	like := torch.EmptyOptions{}
	if slot, ok := stored(s.weight); ok {
		like.DType, like.Device = slot.Tensor().DType(), slot.Tensor().Device()
	}
	if like.Device == torch.Meta {
		like.Device = a.info.Device
	}
	finish := func(t *torch.Tensor) *torch.Tensor {
		opt := torch.ToOptions{}
		if like.DType.IsFloatingPoint() {
			opt.DType = like.DType
		} else {
			opt.DType = t.DType()
		}
		to := like.Device
		if (to == torch.Device{}) {
			to = torch.CPU
		}
		t = t.To(to, opt)
		torch.Keep(t)
		return t.SetRequiresGrad(true)
	}
	m.setting = &setting{name: name, feedforward: t.Feedforward}
	if c.PeftType == IA3 {
		v := torch.Empty(l.ia3Shape(t.Feedforward))
		nninit.Normal_(v, 0, 1)
		if c.InitIA3Weights.Or(true) {
			nninit.Ones_(v)
		}
		m.scale = finish(v)
		return m
	}
	m.setting.r, m.setting.dropout, m.setting.dora = t.R, c.LoraDropout, c.UseDoRA
	m.setting.scaling = scaling(c, t)
	aShape, bShape := l.shapes(t.R)
	av, bv := torch.Empty(aShape), torch.Empty(bShape)
	var bias *torch.Tensor
	if _, m.isEmbedding = t.Module.(*nn.Embedding); m.isEmbedding {
		nninit.Normal_(av, 0, 1)
		nninit.Normal_(bv, 0, 1)
		if c.InitLoraWeights != InitFalse {
			nninit.Zeros_(av)
			nninit.Normal_(bv, 0, 1)
		}
	} else {
		nninit.KaimingUniform_(av, nninit.KaimingOptions{A: math.Sqrt(5)})
		nninit.KaimingUniform_(bv, nninit.KaimingOptions{A: math.Sqrt(5)})
		if c.LoraBias {
			bias = torch.Empty(bShape[:1])
			in, _ := nninit.Fans(bv)
			nninit.Uniform_(bias, -1/math.Sqrt(float64(in)), 1/math.Sqrt(float64(in)))
		}
		if c.InitLoraWeights != InitFalse {
			if c.InitLoraWeights == InitGaussian {
				nninit.Normal_(av, 0, 1/float64(t.R))
			} else {
				nninit.KaimingUniform_(av, nninit.KaimingOptions{A: math.Sqrt(5)})
			}
			nninit.Zeros_(bv)
			if bias != nil {
				nninit.Zeros_(bias)
			}
		}
	}
	m.a, m.b = finish(roomy(av, 0, a.target, l)), finish(roomy(bv, 1, a.target, l))
	if bias != nil {
		m.bias = finish(bias)
	}
	if c.UseDoRA {
		delta := l.product(wide(m.a), wide(m.b)).MulScalar(torch.Scalar(m.setting.scaling))
		m.magnitude = finish(l.norm(wide(matrix(l)).Add(delta)))
	}
	return m
}

func scaling(c *Config, t Target) float64 {
	if c.UseRSLoRA {
		return t.Alpha / math.Sqrt(float64(t.R))
	}
	return t.Alpha / float64(t.R)
}
