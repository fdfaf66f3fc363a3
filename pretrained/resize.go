package pretrained

import (
	"fmt"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// ResizeOptions are the optional arguments of ResizeTokenEmbeddings.
type ResizeOptions struct {
	PadToMultipleOf int // round the number of tokens up to a multiple of this; default: not

	// MeanResizing draws new rows from the normal distribution that has the mean of the old rows and 1e-9 of
	// their covariance, in float32; where that is not positive definite, as with fewer rows than columns, they
	// are the mean. (See https://nlp.stanford.edu/~johnhew/vocab-expansion.html.) False draws them as a new
	// model's. Default: true.
	MeanResizing torch.Opt[bool]
}

// ResizeTokenEmbeddings gives input and output embeddings n rows: those there are keep their values, others are
// added or cut at the end. vocab_size of the config follows. Tied weights stay tied; a tied layer's bias gets zeros,
// that of one of its own its mean. A padding index, and pad_token_id, that are cut off are dropped. The resized parameters
// are new tensors, and the former ones are closed: make an optimizer afterwards. If there is an error, nothing has
// changed. (resize_token_embeddings)
func (p *PreTrainedModel) ResizeTokenEmbeddings(n int, opts ...ResizeOptions) (*nn.Embedding, error) {
	var o ResizeOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	if err := p.withoutAdapters("resizing embeddings"); err != nil {
		return nil, err
	}
	if o.PadToMultipleOf < 0 || o.PadToMultipleOf > MaxSize {
		return nil, &Error{Class: ErrArgument, Detail: "pad to multiple of", Expected: "0 or more", Actual: fmt.Sprint(o.PadToMultipleOf)}
	}
	if n < 1 || n > MaxSize-o.PadToMultipleOf {
		return nil, &Error{Class: ErrArgument, Detail: "number of tokens", Expected: fmt.Sprintf("1 to %d", MaxSize), Actual: fmt.Sprint(n)}
	}
	if k := o.PadToMultipleOf; k > 0 {
		n = (n + k - 1) / k * k
	}
	e := p.InputEmbeddings()
	if e == nil {
		return nil, &Error{Class: ErrUnsupported, Detail: p.Class() + " has no input embeddings"}
	}
	r := resizer{model: p.self, rows: n, std: initStd(p.config), mean: o.MeanResizing.Or(true)}
	if err := r.plan(p, e); err != nil {
		return nil, err
	}
	if err := setVocabulary(CloneConfig(p.config), n); err != nil { // as long as nothing has changed
		return nil, err
	}
	if err := torch.TryDo(r.run); err != nil {
		return nil, &Error{Detail: fmt.Sprintf("resizing the embeddings of %s to %d tokens", p.Class(), n), Err: err}
	}
	if e.PaddingIdx >= n {
		e.PaddingIdx = -1
	}
	return e, setVocabulary(p.config, n)
}

// setVocabulary makes a config fit n tokens.
func setVocabulary(c Config, n int) error {
	fields := configFields(c)
	if f, ok := fields["vocab_size"]; ok {
		if err := setField(f, "vocab_size", n); err != nil {
			return err
		}
	}
	const key = "pad_token_id"
	if pad := configToken(c, key); pad == nil || *pad < n {
		return nil
	}
	if f, ok := fields[key]; ok {
		return setField(f, key, nil)
	}
	c.Base().Drop(key)
	return nil
}

// configToken is a config's value that may be absent or null.
func configToken(c Config, key string) *int {
	var v any
	if f, ok := configFields(c)[key]; ok {
		v = f.Interface()
	} else {
		v, _ = c.Base().Extra(key)
	}
	if i, ok := v.(*int); ok {
		return i
	}
	if i, ok := asInt(v); ok {
		return &i
	}
	return nil
}

// resizer makes the new values of the tensors that have a row for each token.
type resizer struct {
	model Model
	rows  int
	std   float64
	mean  bool
	jobs  []resizeJob
}

type resizeJob struct {
	t    *torch.Tensor
	fill func(old, fresh *torch.Tensor)
}

// plan finds the tensors.
func (r *resizer) plan(p *PreTrainedModel, e *nn.Embedding) error {
	refuse := func(weight any) error {
		return &Error{Class: ErrUnsupported, Detail: "resizing embeddings of " + p.Class(), Actual: fmt.Sprintf("weights that are stored as %T", weight)}
	}
	table, ok := e.Weight.(*nn.Table)
	if !ok {
		return refuse(e.Weight)
	}
	r.add(table.W, r.matrix)
	if head := p.OutputEmbeddings(); head != nil {
		dense, ok := head.Weight.(*nn.Dense)
		if !ok {
			return refuse(head.Weight)
		}
		bias := r.bias
		if dense.W == table.W {
			bias = func(_, fresh *torch.Tensor) { fresh.Zero_() }
		} else {
			r.add(dense.W, r.matrix)
		}
		if head.Bias != nil {
			r.add(head.Bias, bias)
		}
		slots := slotsByName(p.self)
		for target, source := range p.classTies() { // a bias that could be the head's, but isn't
			if s := slots[source]; slots[target].Owner == any(head) && s.Name != "" && s.Tensor().Dim() == 1 {
				r.add(s.Tensor(), bias)
			}
		}
	}
	away := p.offloadedNames()
	for _, s := range nn.Slots(p.self) {
		for _, j := range r.jobs {
			if s.Tensor() == j.t && (away[s.Name] || j.t.Device() == torch.Meta) {
				return &Error{Tensor: s.Name, Class: ErrUnsupported, Detail: "resizing embeddings of " + p.Class(), Actual: "a weight that is offloaded",
					Remedy: "load the model without offloading it"}
			}
		}
	}
	return nil
}

func (r *resizer) add(t *torch.Tensor, fill func(old, fresh *torch.Tensor)) {
	for _, j := range r.jobs {
		if j.t == t {
			return
		}
	}
	if t.Size(0) != r.rows {
		r.jobs = append(r.jobs, resizeJob{t, fill})
	}
}

// run makes all values before it changes a tensor.
func (r *resizer) run() {
	torch.Scope(func() {
		torch.NoGrad(func() {
			values := make([]*torch.Tensor, len(r.jobs))
			for i, j := range r.jobs {
				values[i] = withRows(j.t, r.rows, func(fresh *torch.Tensor) { j.fill(j.t, fresh) })
			}
			for i, j := range r.jobs {
				exchange(r.model, j.t, values[i])
			}
		})
	})
}

// exchange puts t in every slot that holds another tensor, which is closed. Giving that one other data would not
// do: graphs that are not freed yet remember its shape.
func exchange(m Model, old, t *torch.Tensor) {
	t.SetRequiresGrad(old.RequiresGrad())
	for _, s := range nn.Slots(m) {
		if s.Tensor() == old {
			s.Set(t)
		}
	}
	old.Close()
}

// withRows is a copy of t with n rows, of which fill sets those that t has not.
func withRows(t *torch.Tensor, n int, fill func(fresh *torch.Tensor)) *torch.Tensor {
	shape := t.Shape()
	old := shape[0]
	shape[0] = n
	out := torch.Empty(shape, torch.EmptyOptions{DType: t.DType(), Device: t.Device()})
	kept := min(old, n)
	out.Narrow(0, 0, kept).Copy_(t.Detach().Narrow(0, 0, kept))
	if n > old {
		fill(out.Narrow(0, old, n-old))
	}
	return out
}

// matrix fills new rows (added, C) beside the old (V, C).
func (r *resizer) matrix(old, fresh *torch.Tensor) {
	if !r.mean {
		fresh.Normal_(torch.NormalInPlaceOptions{Std: torch.Some(r.std)})
		return
	}
	torch.Scope(func() {
		x := old.Detach().ToDType(torch.Float32)
		mean := x.MeanDim([]int{0})
		x = x.Sub(mean)
		covariance := x.T().MatMul(x).DivScalar(old.Size(0)).MulScalar(1e-9)
		root, info := torch.LinalgCholeskyEx(covariance)
		if torch.Item[int32](info) != 0 {
			fresh.Copy_(mean.ExpandAs(fresh))
			return
		}
		noise := torch.Randn(fresh.Shape(), torch.TensorOptions{Device: fresh.Device()})
		fresh.Copy_(noise.MatMul(root.T()).Add(mean))
	})
}

// bias fills the new entries of a bias (V).
func (r *resizer) bias(old, fresh *torch.Tensor) {
	if !r.mean {
		fresh.Zero_()
		return
	}
	torch.Scope(func() {
		x := old.Detach().ToDType(torch.Float32)
		std := 0.0
		if x.Numel() > 1 {
			std = 1e-9 * float64(torch.Item[float32](x.Std()))
		}
		fresh.Normal_(torch.NormalInPlaceOptions{Mean: float64(torch.Item[float32](x.Mean())), Std: torch.Some(std)})
	})
}
