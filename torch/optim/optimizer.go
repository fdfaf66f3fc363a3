package optim

import (
	"fmt"
	"slices"

	"github.com/torchgo/torchgo/torch"
)

// Optimizer is what all optimizers can do.
type Optimizer interface {
	// Step updates the parameters that have a gradient. With a closure, which computes the loss and its
	// gradients anew, it calls that first and returns the loss; LBFGS needs one and calls it several times.
	Step(closure ...func() *torch.Tensor) (loss *torch.Tensor)
	// ZeroGrad removes the gradients of all parameters, or sets them to zero.
	ZeroGrad(opts ...ZeroGradOptions)
	// Groups are the parameter groups.
	Groups() []*Group
	// StateDict is the state in PyTorch's form. Its tensors are the optimizer's own, not copies.
	StateDict() *StateDict
	// LoadStateDict takes over a state that StateDict, or PyTorch, has made. Tensors are copied. Nothing
	// changes when an error is returned.
	LoadStateDict(state *StateDict) error
	// Close frees the state; parameters and gradients stay. The optimizer must not be used afterwards.
	Close()
}

// ZeroGradOptions are the optional arguments of ZeroGrad.
type ZeroGradOptions struct {
	SetToNone torch.Opt[bool] // default true; false: gradients become zeros
}

// Group is a parameter group: parameters that are trained with the same options.
type Group struct {
	Params []*torch.Tensor
	Names  []string // of the parameters, PyTorch's param_names; nil: none are known

	options any // *O
	table   []option
	extra   map[string]any // entries that are no options: initial_lr, …
	entries []*entry
}

// LR is the learning rate.
func (g *Group) LR() float64 {
	lr, _ := number(g.Get("lr"))
	return lr
}

// SetLR changes the learning rate.
func (g *Group) SetLR(lr float64) { g.Set("lr", lr) }

// Options is a pointer to the options of this group, *SGDOptions for [SGD] and so on. They may be changed.
func (g *Group) Options() any { return g.options }

// Get is an entry of the group under PyTorch's name, "weight_decay", as JSON has it: nil (not there, or
// None), a bool, float64, int, string or []any.
func (g *Group) Get(key string) any {
	for _, o := range g.table {
		if o.key == key {
			return o.value()
		}
	}
	return g.extra[key]
}

// Set changes an entry. It panics where the value is not of the option's type; names that are no option are
// kept, like those that PyTorch's schedulers add.
func (g *Group) Set(key string, v any) {
	for _, o := range g.table {
		if o.key == key {
			if err := o.set(v, true); err != nil {
				fail("set", "%v", err)
			}
			return
		}
	}
	if g.extra == nil {
		g.extra = map[string]any{}
	}
	g.extra[key] = v
}

// Base is an optimizer with options O: what all optimizers that update each parameter on its own have in
// common. [SGD], [Adam] and the others are such.
type Base[O any] struct {
	rule     *rule[O]
	defaults O
	groups   []*Group
	byParam  map[*torch.Tensor]*entry
	order    []*entry // by PyTorch's number
}

// rule is what makes one optimizer different from another.
type rule[O any] struct {
	name    string
	table   func(o *O) []option
	check   func(o *O) rules
	slots   []string                       // names of the state's tensors
	scalars []int                          // slots that are single float32 numbers on the CPU
	counts  bool                           // there is a step counter as well
	intStep bool                           // which state dicts have as an int
	sparse  bool                           // sparse gradients are fine
	eager   bool                           // the state is made with the optimizer
	shape   func(slot int, of []int) []int // of a slot for a parameter's shape, which it may change; nil: the same
	accept  func(p *torch.Tensor) string
	needs   func(o *O, e *entry) []int               // slots that a started parameter has; nil: all
	begin   func(o *O, e *entry, grad *torch.Tensor) // makes them; nil: zeros like the parameter
	sort    func(e *entry, grad *torch.Tensor) int   // further key for batches
	update  func(o *O, b *batch)
}

// entry is a parameter with its state.
type entry struct {
	param  *torch.Tensor
	dtype  torch.DType
	device torch.Device
	made   bool // the state is there
	step   *torch.Tensor
	count  []float32       // the step's memory on the CPU
	slots  []*torch.Tensor // nil: absent
}

// batch is a set of parameters of one group that have one dtype, one device and gradients of one kind.
type batch struct {
	name    string
	entries []*entry
	params  []*torch.Tensor
	grads   []*torch.Tensor
	dtype   torch.DType
	device  torch.Device
	sparse  bool
	key     int // of rule.sort
}

func newBase[O any](r *rule[O], params []*torch.Tensor, opts []O) *Base[O] {
	b := &Base[O]{rule: r, byParam: map[*torch.Tensor]*entry{}}
	if len(opts) > 0 {
		b.defaults = opts[0]
	}
	fill(r.table(&b.defaults))
	if len(params) == 0 {
		fail(r.name, "optimizer got an empty parameter list")
	}
	b.AddParamGroup(params)
	return b
}

// AddParamGroup adds parameters with options of their own: those of the optimizer, as change modifies
// them.
func (b *Base[O]) AddParamGroup(params []*torch.Tensor, change ...func(*O)) *Group {
	o := new(O)
	*o = b.defaults
	for _, c := range change {
		c(o)
	}
	if message := b.rule.check(o).broken(); message != "" {
		fail(b.rule.name, "%s", message)
	}
	g := &Group{Params: slices.Clone(params), options: o, table: b.rule.table(o)}
	own := map[*torch.Tensor]bool{}
	for _, p := range params {
		switch {
		case p == nil:
			fail(b.rule.name, "optimizer can only optimize Tensors, but one of the params is nil")
		case !p.IsLeaf():
			fail(b.rule.name, "can't optimize a non-leaf Tensor")
		case own[p]:
			fail(b.rule.name, "optimizer contains a parameter group with duplicate parameters")
		case b.byParam[p] != nil:
			fail(b.rule.name, "some parameters appear in more than one parameter group")
		}
		if b.rule.accept != nil {
			if message := b.rule.accept(p); message != "" {
				fail(b.rule.name, "%s", message)
			}
		}
		own[p] = true
	}
	for _, p := range params {
		e := &entry{param: p, dtype: p.DType(), device: p.Device(), slots: make([]*torch.Tensor, len(b.rule.slots))}
		b.byParam[p] = e
		g.entries = append(g.entries, e)
		if b.rule.eager {
			torch.Scope(func() { torch.NoGrad(func() { b.begin(o, e, p) }) })
		}
	}
	b.order = append(b.order, g.entries...)
	b.groups = append(b.groups, g)
	return g
}

// Groups are the parameter groups.
func (b *Base[O]) Groups() []*Group { return b.groups }

// begin makes the state of a parameter.
func (b *Base[O]) begin(o *O, e *entry, grad *torch.Tensor) {
	if b.rule.counts {
		e.setStep(torch.Zeros([]int{}))
	}
	if b.rule.begin != nil {
		b.rule.begin(o, e, grad)
	} else {
		for _, i := range b.needed(o, e) {
			if shape := b.shape(i, e); slices.Equal(shape, e.param.Shape()) {
				e.slots[i] = torch.ZerosLike(e.param)
			} else {
				e.slots[i] = e.param.NewZeros(shape)
			}
		}
	}
	torch.Keep(e.slots...)
	e.made = true
}

// setStep makes t, a float32 of no dimensions, the step counter.
func (e *entry) setStep(t *torch.Tensor) {
	torch.Keep(t)
	e.step, e.count = t, nil
	if t.Device() == torch.CPU {
		e.count = torch.Data[float32](t)
	}
}

// shape is the shape of a slot.
func (b *Base[O]) shape(slot int, e *entry) []int {
	switch {
	case slices.Contains(b.rule.scalars, slot):
		return nil
	case b.rule.shape != nil:
		return b.rule.shape(slot, e.param.Shape())
	}
	return e.param.Shape()
}

// needed are the slots that a parameter has after its first step.
func (b *Base[O]) needed(o *O, e *entry) []int {
	if b.rule.needs != nil {
		return b.rule.needs(o, e)
	}
	all := make([]int, len(e.slots))
	for i := range all {
		all[i] = i
	}
	return all
}

// Step updates the parameters that have a gradient; see [Optimizer].
func (b *Base[O]) Step(closure ...func() *torch.Tensor) (loss *torch.Tensor) {
	if b.groups == nil {
		panic(&torch.Error{Op: b.rule.name, Kind: torch.ErrClosed, Message: "step: the optimizer was closed"})
	}
	for _, c := range closure {
		if c != nil {
			torch.EnableGrad(func() { loss = c() })
		}
	}
	torch.Scope(func() {
		torch.NoGrad(func() {
			for _, g := range b.groups {
				b.stepGroup(g)
			}
		})
	})
	return loss
}

func (b *Base[O]) stepGroup(g *Group) {
	o := g.options.(*O)
	var first batch // nearly always the only one
	var more []*batch
	for i, grad := range grads(g.Params) {
		if grad == nil {
			continue
		}
		e := g.entries[i]
		sparse := grad.Layout() != torch.Strided
		if sparse && !b.rule.sparse {
			hint := ""
			if b.rule.name == "Adam" || b.rule.name == "AdamW" {
				hint = ", please consider SparseAdam instead"
			}
			panic(&torch.Error{Op: "step", Kind: torch.ErrRuntime, Message: b.rule.name + " does not support sparse gradients" + hint})
		}
		if !e.made {
			b.begin(o, e, grad)
		}
		key := 0
		if b.rule.sort != nil {
			key = b.rule.sort(e, grad)
		}
		to := &first
		if first.entries == nil {
			n := len(g.entries) - i
			first = batch{name: b.rule.name, dtype: e.dtype, device: e.device, sparse: sparse, key: key,
				entries: make([]*entry, 0, n), params: make([]*torch.Tensor, 0, n), grads: make([]*torch.Tensor, 0, n)}
		} else if !first.takes(e, sparse, key) {
			at := slices.IndexFunc(more, func(m *batch) bool { return m.takes(e, sparse, key) })
			if at < 0 {
				at = len(more)
				more = append(more, &batch{name: b.rule.name, dtype: e.dtype, device: e.device, sparse: sparse, key: key})
			}
			to = more[at]
		}
		to.entries, to.params, to.grads = append(to.entries, e), append(to.params, e.param), append(to.grads, grad)
	}
	// Slots that were made in this step belong to the optimizer, also if the step fails.
	defer func() {
		for _, e := range g.entries {
			torch.Keep(e.slots...)
		}
	}()
	if first.entries != nil {
		b.rule.update(o, &first)
	}
	for _, m := range more {
		b.rule.update(o, m)
	}
}

func (m *batch) takes(e *entry, sparse bool, key int) bool {
	return m.dtype == e.dtype && m.device == e.device && m.sparse == sparse && m.key == key
}

// grads are the gradients of parameters; nil where there is none.
func grads(params []*torch.Tensor) []*torch.Tensor {
	list := make([]*torch.Tensor, len(params))
	for i, p := range params {
		list[i] = p.Grad()
	}
	return list
}

// ZeroGrad removes the gradients of all parameters; see [Optimizer].
func (b *Base[O]) ZeroGrad(opts ...ZeroGradOptions) { zeroGrad(b.groups, opts) }

func zeroGrad(groups []*Group, opts []ZeroGradOptions) {
	remove := len(opts) == 0 || opts[0].SetToNone.Or(true)
	for _, g := range groups {
		if remove {
			for _, p := range g.Params {
				p.SetGrad(nil)
			}
			continue
		}
		torch.Scope(func() {
			torch.NoGrad(func() {
				for _, grad := range grads(g.Params) {
					if grad != nil {
						grad.Detach().Zero_()
					}
				}
			})
		})
	}
}

// Close frees the state; see [Optimizer].
func (b *Base[O]) Close() {
	for _, e := range b.order {
		e.close()
	}
	b.order, b.byParam, b.groups = nil, nil, nil
}

func (e *entry) close() {
	e.step.Close()
	for _, t := range e.slots {
		t.Close()
	}
}

// raw are the tensors of a slot.
func (m *batch) raw(i int) []*torch.Tensor {
	list := make([]*torch.Tensor, len(m.entries))
	for k, e := range m.entries {
		list[k] = e.slots[i]
	}
	return list
}

// slot is raw, with complex tensors as real ones; see [batch.reals].
func (m *batch) slot(i int) []*torch.Tensor { return m.reals(m.raw(i)) }

// reals views complex tensors as real ones with a last dimension of two.
func (m *batch) reals(list []*torch.Tensor) []*torch.Tensor {
	if !m.dtype.IsComplex() {
		return list
	}
	views := make([]*torch.Tensor, len(list))
	for i, t := range list {
		views[i] = torch.ViewAsReal(t)
	}
	return views
}

// tick adds one to the step counters and returns them.
func (m *batch) tick() []float64 {
	m.stepsOn(torch.CPU)
	steps := make([]float64, len(m.entries))
	for i, e := range m.entries {
		e.count[0]++
		steps[i] = float64(e.count[0])
	}
	return steps
}

// countOn is tick for a fused kernel: the counters are on the device of the parameters.
func (m *batch) countOn() []*torch.Tensor {
	steps := m.stepsOn(m.device)
	if m.device == torch.CPU {
		for _, e := range m.entries {
			e.count[0]++
		}
	} else {
		torch.Internal.ForeachAddScalar_(steps, 1)
	}
	return steps
}

// stepsOn are the step counters as tensors on a device, where they stay.
func (m *batch) stepsOn(device torch.Device) []*torch.Tensor {
	list := make([]*torch.Tensor, len(m.entries))
	for i, e := range m.entries {
		if (e.count != nil) != (device == torch.CPU) {
			old := e.step
			e.setStep(old.To(device))
			old.Close()
		}
		list[i] = e.step
	}
	return list
}

// How a step is computed.
type implementation int

const (
	forLoop implementation = iota // PyTorch's order of operations for one tensor after the other
	foreach                       // PyTorch's order of operations for lists of tensors
	fused                         // one kernel
)

// choose picks the implementation. Where the options leave it open that is the fused kernel, if there is
// one for the parameters, and else what PyTorch takes.
func (m *batch) choose(hasFused bool, useForeach, useFused torch.Opt[bool]) implementation {
	on, chosen := useFused.Get()
	each, eachChosen := useForeach.Get()
	float := m.dtype.IsFloatingPoint() && !m.sparse
	switch {
	case on && !float:
		panic(&torch.Error{Op: "step", Kind: torch.ErrRuntime, Message: fmt.Sprintf(
			"`fused=True` requires all the params to be floating point Tensors with dense gradients, but %s on %s", m.dtype, m.device)})
	case on:
		return fused
	case each:
		return foreach
	case chosen || eachChosen:
		return forLoop
	case hasFused && float && (m.device.Type == torch.DeviceCUDA || m.dtype == torch.Float32 || m.dtype == torch.Float64):
		return fused
	case m.device.Type == torch.DeviceCUDA && !m.sparse:
		return foreach
	}
	return forLoop
}
