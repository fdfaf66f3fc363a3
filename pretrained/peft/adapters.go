package peft

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Adapters are those of one model. It is a module of the tensors that are not in place: of modules that an adapter
// has a copy of (modules_to_save), the copies of adapters that are not active, or the model's own. A model that holds
// its Adapters in an inlined field moves, copies and frees them with itself.
//
// The methods change the model, so nothing may run it meanwhile.
type Adapters struct {
	Aside *nn.ParameterList `torch:"modules_to_save"`

	model  any
	info   ModelInfo
	names  []string // in the order in which they were added
	config map[string]*Config
	active []string
	off    bool
	saved  map[string]*savedModule // by path
	target int                     // the rank that tensors have room for, see EnableHotswap; 0: that of the adapter
}

// New is a model without adapters.
func New(model any, info ModelInfo) *Adapters {
	return &Adapters{Aside: nn.NewParameterList(), model: model, info: info, config: map[string]*Config{}, saved: map[string]*savedModule{}}
}

// Rebind makes a what is known of a copy of its model that was made with nn.Clone.
func (a *Adapters) Rebind(model any) {
	a.model = model
	a.names, a.active = slices.Clone(a.names), slices.Clone(a.active)
	a.config, a.saved = maps.Clone(a.config), maps.Clone(a.saved)
	for name, c := range a.config {
		a.config[name] = c.Clone()
	}
	for path, s := range a.saved {
		a.saved[path] = s.clone()
	}
}

// Names are those of all adapters, in the order in which they were added.
func (a *Adapters) Names() []string { return slices.Clone(a.names) }

// Config is that of an adapter; nil: there is none of that name.
func (a *Adapters) Config(name string) *Config { return a.config[name] }

// Active are the names of the adapters that take part in the forward pass, if they are not disabled.
func (a *Adapters) Active() []string { return slices.Clone(a.active) }

// Enabled reports whether the active ones take part.
func (a *Adapters) Enabled() bool { return !a.off }

// sites yields the modules that have, or can have, adapters.
func (a *Adapters) sites() iter.Seq2[string, site] {
	return func(yield func(string, site) bool) {
		for path, module := range nn.NamedModules(a.model) {
			if s, ok := siteOf(module); ok && !yield(path, s) {
				return
			}
		}
	}
}

// layers yields those that have some.
func (a *Adapters) layers() iter.Seq2[string, layer] {
	return func(yield func(string, layer) bool) {
		for path, s := range a.sites() {
			if l := s.layer(); l != nil && !yield(path, l) {
				return
			}
		}
	}
}

// training tells whether the model is in training mode.
func (a *Adapters) training() bool {
	m, ok := a.model.(interface{ Training() bool })
	return !ok || m.Training()
}

// Add puts a new adapter into the model, beside those that are there. The model's own parameters are not trained from
// now on, but biases that the config says. The first adapter is active; a further one when Set says so.
// New values are drawn from the default generator as peft draws them.
func (a *Adapters) Add(c *Config, name string) error {
	if !c.InitLoraWeights.Known() {
		return &fileerr.Error{Class: fileerr.ErrUnsupported, Detail: "init_lora_weights of a new adapter", Actual: string(c.InitLoraWeights)}
	}
	return a.insert(c, name, nil)
}

// insert is Add for an adapter whose values may come from a file; state is nil, or what it has.
func (a *Adapters) insert(c *Config, name string, state map[string]*torch.Tensor) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if err := a.checkNew(c, name); err != nil {
		return err
	}
	targets, err := Resolve(a.model, c, a.info)
	if err != nil {
		return err
	}
	if state != nil {
		if err := a.fits(c, targets, state); err != nil {
			return err
		}
	}
	return a.add(c, name, targets)
}

// checkNew refuses an adapter that can't stand beside those that are there.
func (a *Adapters) checkNew(c *Config, name string) error {
	switch {
	case a.config[name] != nil:
		return badArgument(fmt.Sprintf("Adapter with name %s already exists. Please use a different name.", name), "", "")
	case name == "" || strings.Contains(name, "."):
		return badArgument("adapter name", "something without dots", fmt.Sprintf("%q", name))
	}
	if err := a.unmerged("adding an adapter"); err != nil {
		return err
	}
	for _, other := range a.names {
		o := a.config[other]
		switch {
		case o.PeftType != c.PeftType:
			return &fileerr.Error{Class: fileerr.ErrUnsupported, Detail: "adapters of two kinds on one model",
				Expected: string(o.PeftType), Actual: string(c.PeftType)}
		case o.biases() != BiasNone && c.biases() != BiasNone:
			return badArgument("bias", "none, for all adapters or all but one: the biases are the model's own", string(c.Bias))
		}
	}
	return nil
}

func (c *Config) biases() Bias {
	if c.Bias == "" || c.PeftType == IA3 {
		return BiasNone
	}
	return c.Bias
}

// unmerged refuses what can't be done to a model with merged adapters.
func (a *Adapters) unmerged(what string) error {
	if m := a.Merged(); len(m) > 0 {
		return &fileerr.Error{Class: fileerr.ErrArgument, Detail: what, Actual: "a model with merged adapters (" + strings.Join(m, ", ") + ")",
			Remedy: "unmerge them first"}
	}
	return nil
}

// find refuses names of adapters that are not there.
func (a *Adapters) find(names ...string) error {
	for _, name := range names {
		if a.config[name] == nil {
			return badArgument(fmt.Sprintf("Adapter with name %s not found.", name), "one of ["+strings.Join(a.names, ", ")+"]", "")
		}
	}
	return nil
}

// Set makes these adapters the active ones, and all others not, and has their tensors trained. Where several are
// active, all change what the layers compute; a module that they have copies of can have one only.
func (a *Adapters) Set(names ...string) error {
	if err := a.find(names...); err != nil {
		return err
	}
	if err := a.unmerged("choosing adapters"); err != nil {
		return err
	}
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			return badArgument("adapter "+name, "once", "twice")
		}
	}
	for path, s := range a.saved {
		if of := s.among(names); len(of) > 1 {
			return badArgument("active adapters", "one that has a copy of "+path, strings.Join(of, ", "))
		}
	}
	a.active = slices.Clone(names)
	a.apply(!a.off)
	return nil
}

// Enable has the active adapters take part again, and be trained.
func (a *Adapters) Enable() { a.off = false; a.apply(true) }

// Disable has the model compute as it would without adapters, which are not trained meanwhile.
func (a *Adapters) Disable() error {
	if err := a.unmerged("disabling adapters"); err != nil {
		return err
	}
	a.off = true
	a.apply(false)
	return nil
}

// Freeze ends the training of all adapters, until Set or Enable.
func (a *Adapters) Freeze() { a.train(false) }

// apply brings the layers to what a says.
func (a *Adapters) apply(train bool) {
	a.activate()
	a.train(train)
}

func (a *Adapters) activate() {
	names := a.active
	if a.off {
		names = nil
	}
	for _, l := range a.layers() {
		if len(l.of().merged) == 0 {
			l.of().activate(names)
		}
	}
	for _, s := range a.saved {
		a.place(s, names)
	}
}

// train says whether the active adapters are trained; others are not.
func (a *Adapters) train(on bool) {
	for _, l := range a.layers() {
		for name := range l.of().settings {
			for _, p := range l.of().tensors(name) {
				p.tensor.SetRequiresGrad(on && slices.Contains(a.active, name))
			}
		}
	}
	for _, s := range a.saved {
		for name := range s.copies {
			for i := range s.names {
				if t := a.copyOf(s, name, i); t.DType().IsFloatingPoint() {
					t.SetRequiresGrad(on && name != "" && s.kinds[i] == nn.Parameter && slices.Contains(a.active, name))
				}
			}
		}
	}
}

// freezeModel ends the training of the model's own parameters.
func (a *Adapters) freezeModel() {
	own := a.own()
	for _, s := range nn.Slots(a.model) {
		if own[s.Name] && s.Kind == nn.Parameter && s.Tensor().DType().IsFloatingPoint() {
			s.Tensor().SetRequiresGrad(false)
		}
	}
}

// trainBiases has those of the model's biases trained that an adapter's config says.
func (a *Adapters) trainBiases(c *Config) {
	switch c.biases() {
	case BiasAll:
		own := a.own()
		for _, s := range nn.Slots(a.model) {
			if own[s.Name] && isBias(s.Name) {
				s.Tensor().SetRequiresGrad(true)
			}
		}
	case BiasLoraOnly:
		for _, s := range a.sites() {
			if s.layer() != nil && s.bias != nil {
				s.bias.SetRequiresGrad(true)
			}
		}
	}
}

func isBias(name string) bool { return name == "bias" || strings.HasSuffix(name, ".bias") }

// own are the names of the model's slots that are not of adapters.
func (a *Adapters) own() map[string]bool {
	own := map[string]bool{}
	for _, s := range nn.Slots(a.model) {
		if s.Owner != any(a.Aside) {
			own[s.Name] = true
		}
	}
	for path, l := range a.layers() {
		for _, s := range nn.Slots(l.of()) {
			delete(own, join(path, s.Name))
		}
	}
	return own
}

// ModelState yields the model's own state dict: that of nn.StateDict as it was before there were adapters.
func (a *Adapters) ModelState() iter.Seq2[string, *torch.Tensor] {
	return func(yield func(string, *torch.Tensor) bool) {
		own, instead := a.own(), map[string]*torch.Tensor{}
		for path, l := range a.layers() {
			f := l.of()
			if s, ok := stored(l); ok && f.Weight != nil {
				instead[join(path, s.Name)] = f.Weight
			}
			if f.Bias != nil {
				instead[join(path, "bias")] = f.Bias
			}
		}
		for path, s := range a.saved {
			for i, name := range s.names {
				instead[join(path, name)] = a.copyOf(s, "", i)
			}
		}
		for name, t := range nn.StateDict(a.model) {
			if other := instead[name]; other != nil {
				t = other
			}
			if own[name] && !yield(name, t) {
				return
			}
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// Delete takes adapters out and frees them. If no active one is left, the first by name of the others becomes active.
func (a *Adapters) Delete(names ...string) error {
	if err := a.find(names...); err != nil {
		return err
	}
	if err := a.unmerged("deleting adapters"); err != nil {
		return err
	}
	for _, name := range names {
		a.names = slices.DeleteFunc(a.names, func(n string) bool { return n == name })
		a.active = slices.DeleteFunc(a.active, func(n string) bool { return n == name })
		delete(a.config, name)
		if len(a.active) == 0 && len(a.names) > 0 {
			a.active = []string{slices.Min(a.names)}
		}
		a.apply(!a.off)
		for _, l := range a.layers() {
			l.of().remove(name)
		}
		for path, s := range a.saved {
			if a.dropCopy(s, name); len(s.copies) == 1 {
				a.forget(path)
			}
		}
	}
	a.unwrapUnused()
	return nil
}

// unwrapUnused takes the layers off that no adapter needs any more.
func (a *Adapters) unwrapUnused() {
	for _, s := range a.sites() {
		if l := s.layer(); l != nil && len(l.of().settings) == 0 {
			s.unwrap()
		}
	}
}

// Unload takes all adapters out and frees them. The model is what it was.
func (a *Adapters) Unload() error {
	if err := a.unmerged("unloading adapters"); err != nil {
		return err
	}
	a.active = nil
	a.apply(false)
	a.clear()
	return nil
}

// clear frees the adapters; what is in place stays.
func (a *Adapters) clear() {
	for _, s := range a.sites() {
		if l := s.layer(); l != nil {
			f := l.of()
			for name := range f.settings {
				f.remove(name)
			}
			s.unwrap()
		}
	}
	for path := range a.saved {
		a.forget(path)
	}
	a.names, a.active, a.off, a.config = nil, nil, false, map[string]*Config{}
}
