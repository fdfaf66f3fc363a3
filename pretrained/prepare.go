package pretrained

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/torchgo/torchgo/internal/weights"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// loader carries one load through the pipeline.
type loader struct {
	opts       Options
	files      *files
	arch       *Architecture
	class      *Class
	config     Config
	checkpoint *checkpoint.Checkpoint
	dtype      torch.DType
	device     torch.Device     // the main one: where what the model is given goes
	places     map[string]place // of all tensors, by name
	model      Model            // on the meta device until its weights come
	slots      map[string]nn.Slot
	plan       *LoadPlan
	compare    map[string]string // ties whose two tensors are both in the checkpoint
	names      *keyMap           // from the checkpoint to the model
	broken     []error           // conversions that can't be made
	state      []source          // in place of a checkpoint: the caller's state dict
	absent     map[string]string // by key: what a conversion lacks
	mapped     bool              // views of the file may be handed out
	dry        bool              // nothing will be loaded, so the devices need not be there
	budgeted   bool              // the device map was made from budgets

	stages  stages
	mu      sync.Mutex
	onDisk  map[string]weightSource // weights that stay on disk, by key
	spilled []*safetensors.File     // those of the offload folder
}

func (l *loader) close() {
	if l.checkpoint != nil {
		_ = l.checkpoint.Close() // read only: nothing can be lost
		l.checkpoint = nil
	}
	if l.files != nil {
		l.files.close()
	}
	for _, f := range l.spilled {
		_ = f.Close()
	}
}

// prepare runs the pipeline up to the plan.
func prepare(ctx context.Context, path string, opts Options, dry bool) (_ *loader, err error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	l := &loader{opts: opts, dry: dry, mapped: !opts.DisableMmap, onDisk: map[string]weightSource{}}
	defer func() {
		if err != nil {
			l.close()
			if l.model != nil {
				l.model.Close()
			}
		}
	}()
	l.plan = &LoadPlan{Path: path}
	if IsQuantizedState(ctx) {
		return nil, &Error{File: path, Class: ErrUnsupported, Detail: "quantized models can't be loaded yet"}
	}
	if err := l.find(ctx, path); err != nil {
		return nil, err
	}
	if err := l.chooseDType(); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := torch.Load(); err != nil {
		return nil, err
	}
	if err := torch.TryDo(l.build); err != nil {
		return nil, &Error{File: l.files.config, Class: ErrBadConfig, Detail: "building " + l.class.Name, Err: err}
	}
	if err := l.readGeneration(); err != nil {
		return nil, err
	}
	if err := l.place(); err != nil {
		return nil, err
	}
	if err := l.checkGGUFPlaces(); err != nil {
		return nil, err
	}
	if err := l.mapNames(); err != nil {
		return nil, err
	}
	return l, nil
}

// find settles files, architecture, class and config, and opens the checkpoint. A folder that is saved into
// meanwhile is looked at again, so that all of it is of one save.
func (l *loader) find(ctx context.Context, path string) (err error) {
	if l.opts.StateDict != nil {
		if err := l.useStateDict(path); err != nil {
			return err
		}
		return l.choose()
	}
	for tries := 1; ; tries++ {
		if l.files, err = resolve(ctx, path, l.opts); err == nil {
			if err = l.choose(); err == nil {
				l.checkpoint, err = l.files.openCheckpoint(l.opts)
			}
		}
		if l.files == nil || l.files.unchanged() || ctx.Err() != nil {
			break
		}
		l.close()
		if l.plan = (&LoadPlan{}); tries == 10 {
			return &Error{File: path, Class: ErrConflict, Detail: "the checkpoint is changed all the time", Remedy: "load it when that has ended"}
		}
	}
	l.plan.Path = path
	return err
}

// choose settles architecture, class and config.
func (l *loader) choose() (err error) {
	if err := l.refuseQuantized(); err != nil {
		return inFile(err, l.files.config)
	}
	if l.opts.ConfigInstance != nil {
		return l.useConfig(l.opts.ConfigInstance)
	}
	if l.files.raw == nil {
		return l.useDefaults()
	}
	if l.arch, l.class, err = choose(l.opts.Class, l.files.raw); err != nil {
		return inFile(err, l.files.config)
	}
	l.plan.Class = l.class.Name
	if t, _ := l.files.raw["model_type"].(string); t != l.arch.ModelType {
		l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf("a checkpoint of model type %q is loaded as %s", shorten(t), l.class.Name))
	}
	if entry := autoMapEntry(l.files.raw, l.opts.Class); entry != "" {
		l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf("the checkpoint's own code (auto_map %s) is never run; this is the built-in %s", entry, l.class.Name))
	}
	l.config = l.arch.NewConfig()
	if err := readConfig(l.config, l.files.raw, l.opts.Config); err != nil {
		return inFile(err, l.files.config)
	}
	return l.settle()
}

// useDefaults settles them without a config.json.
func (l *loader) useDefaults() error {
	if autoClasses[l.opts.Class] != nil || l.opts.Class == "" {
		return &Error{File: l.plan.Path, Class: ErrBadConfig, Err: fs.ErrNotExist, Detail: "no config.json says what model this is", Remedy: "ask for a class such as BertForMaskedLM, not " + cmp.Or(l.opts.Class, "any")}
	}
	arch, class, err := choose(l.opts.Class, nil)
	if err != nil {
		return err
	}
	l.arch, l.class, l.plan.Class = arch, class, class.Name
	l.config = arch.NewConfig()
	if err := readConfig(l.config, nil, l.opts.Config); err != nil {
		return err
	}
	l.config.Base().Warn("there is no config.json: the model has the defaults of %s", class.Name)
	return l.settle()
}

// useConfig settles them for a config of the caller's, of which the model has a copy.
func (l *loader) useConfig(config Config) (err error) {
	base := config.Base()
	raw := map[string]any{"model_type": base.ModelType}
	var listed []any
	for _, name := range base.Architectures {
		listed = append(listed, name)
	}
	raw["architectures"] = listed
	if l.arch, l.class, err = choose(l.opts.Class, raw); err != nil {
		return err
	}
	l.plan.Class = l.class.Name
	if want := l.arch.NewConfig(); reflect.TypeOf(want) != reflect.TypeOf(config) {
		return &Error{Class: ErrArgument, Detail: "config for " + l.class.Name, Expected: fmt.Sprintf("a %T", want), Actual: fmt.Sprintf("a %T", config)}
	}
	l.config = CloneConfig(config)
	if c, ok := l.config.(Completer); ok {
		if err := c.Complete(); err != nil {
			return err
		}
	}
	if err := l.config.Validate(); err != nil {
		return err
	}
	return l.settle()
}

// settle applies the options that change the config.
func (l *loader) settle() error {
	base := l.config.Base()
	l.plan.Warnings = append(append(l.plan.Warnings, l.files.warnings...), base.Warnings...)
	if err := l.checkGGUFClass(); err != nil {
		return err
	}
	kind, notice, err := attention(l.opts.Attn, l.class, base)
	if l.files != nil && errors.Is(err, ErrBadConfig) {
		return inFile(err, l.files.config)
	}
	if err != nil {
		return err
	}
	if notice != "" {
		l.plan.Warnings = append(l.plan.Warnings, notice)
	}
	base.Attn = kind
	return nil
}

// chooseDType applies the "auto" rule unless the caller chose.
func (l *loader) chooseDType() error {
	set := func(name, source, file string) error {
		d, err := torch.ParseDType(name)
		if err != nil || !d.IsFloatingPoint() {
			return &Error{File: file, Class: ErrBadConfig, Detail: "dtype", Expected: "a floating-point dtype", Actual: fmt.Sprintf("%q", shorten(name))}
		}
		l.dtype, l.plan.DTypeSource = d, source
		return nil
	}
	var meta string
	if l.checkpoint != nil && l.checkpoint.Index() != nil {
		meta, _ = l.checkpoint.Index().Metadata["dtype"].(string)
	}
	switch {
	case l.opts.DType != 0:
		l.dtype, l.plan.DTypeSource = l.opts.DType, "option"
	case l.opts.DTypes != nil:
		l.dtype, l.plan.DTypeSource = l.opts.DTypes[""], "option"
		for _, part := range slices.Sorted(maps.Keys(l.opts.DTypes)) {
			if part != "" {
				l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf("the dtype of %s is ignored: a model has one", part))
			}
		}
	case l.config.Base().DType != "":
		if err := set(l.config.Base().DType, "config.json", l.files.config); err != nil {
			return err
		}
	case meta != "":
		if err := set(meta, "index metadata", l.path()); err != nil {
			return err
		}
	case l.gguf() != nil:
		l.dtype, l.plan.DTypeSource = torch.Float32, "GGUF"
	default:
		l.dtype, l.plan.DTypeSource = torch.Float32, "default"
		if d := l.firstFloat(); d != 0 {
			l.dtype, l.plan.DTypeSource = d, "checkpoint"
		}
	}
	l.plan.DType = l.dtype.String()
	l.config.Base().DType = l.dtype.String()
	return nil
}

// firstFloat is the dtype of the first tensor by name of the first file that is a float wider than 8 bits.
func (l *loader) firstFloat() torch.DType {
	var of *weights.File
	if l.checkpoint != nil {
		of = l.checkpoint.Files()[0].File
	}
	var first source
	for s := range l.sources() {
		d := s.torchDType()
		if s.file == of && d.IsFloatingPoint() && d.ItemSize() > 1 && (first.Name == "" || s.Name < first.Name) {
			first = s
		}
	}
	return first.torchDType()
}

func (l *loader) build() {
	l.model = l.class.New(nn.Builder{Device: torch.Meta, DType: l.dtype}, l.config)
	bind(l.model, l.class, l.arch, l.config)
	for _, module := range nn.NamedModules(l.model) { // configs of its parts say the same
		if m, ok := module.(Model); ok {
			part := m.Config().Base()
			part.DType, part.Attn = l.config.Base().DType, l.config.Base().Attn
		}
	}
	l.slots = slotsByName(l.model)
	l.keepFloat32()
}

// keepFloat32 gives the weights that their architecture wants in float32 this dtype.
func (l *loader) keepFloat32() {
	if l.dtype != torch.Float16 && l.dtype != torch.BFloat16 {
		return
	}
	var keep []*regexp.Regexp
	for _, module := range nn.NamedModules(l.model) {
		if m, ok := module.(Model); ok {
			a := m.base().arch
			keep = append(keep, a.keepInFP32Strict...)
			if l.dtype == torch.Float16 {
				keep = append(keep, a.keepInFP32...)
			}
		}
	}
	for _, s := range l.slots {
		if t := s.Tensor(); s.Kind != nn.Transient && t.DType().IsFloatingPoint() && matchesAny(keep, s.Name) {
			replace(s, torch.Empty(t.Shape(), torch.EmptyOptions{DType: torch.Float32, Device: torch.Meta}))
		}
	}
}

// mapNames matches the names of the checkpoint with those of the model and plans each weight.
func (l *loader) mapNames() (err error) {
	saved := func(key string) bool { s, ok := l.slots[key]; return ok && s.Kind != nn.Transient }
	if l.names, err = newKeyMap(l.opts.KeyMapping, l.model, l.gguf(), saved); err != nil {
		return &Error{Class: ErrArgument, Detail: "key mapping", Err: err}
	}
	found := foundWeights{} // by the model's key
	var conversions conversions
	unexpected := map[string]bool{}
	for from := range l.sources() {
		t := l.names.rename(from.Name)
		switch {
		case !saved(t.key):
			keys := []string{t.key}
			if t.by != nil {
				keys = t.targets()
			}
			for _, key := range keys {
				if !l.ignorable(key) {
					unexpected[key] = true
				}
			}
		case t.by != nil:
			if err := conversions.add(t, from); err != nil {
				return err
			}
		default:
			if err := l.planWeight(found, t.key, from); err != nil {
				return err
			}
		}
	}
	for _, c := range conversions.list {
		if err := l.planConversion(found, c); err != nil {
			return err
		}
	}
	l.plan.UnexpectedKeys = slices.Sorted(maps.Keys(unexpected))
	l.planTies(found)
	l.planRest(found)
	l.separate()
	slices.Sort(l.plan.MissingKeys)
	slices.SortFunc(l.plan.MismatchedKeys, func(a, b Mismatch) int { return strings.Compare(a.Key, b.Key) })
	l.count()
	return l.verdict()
}

// found are the planned weights by the model's key.
type foundWeights map[string]PlannedWeight

// planWeight plans one that is in the checkpoint as it is in the model.
func (l *loader) planWeight(found foundWeights, key string, from source) error {
	w := PlannedWeight{Key: key, slot: l.slots[key]}
	shape := w.slot.Tensor().Shape()
	w.Parts = []Part{newPart(from, whole(shape).copyInto())}
	if !slices.Equal(shape, from.Shape) {
		l.mismatch(&w, from.Shape)
	}
	return l.take(found, w)
}

// mismatch makes w one that is initialised, for the checkpoint has it with another shape.
func (l *loader) mismatch(w *PlannedWeight, shape []int) {
	l.plan.MismatchedKeys = append(l.plan.MismatchedKeys, Mismatch{w.Key, shape, w.slot.Tensor().Shape()})
	w.Action = InitAction
}

// take adds a weight to those found and settles how it is read.
func (l *loader) take(found foundWeights, w PlannedWeight) error {
	if other, twice := found[w.Key]; twice {
		p := w.Parts[0]
		return &Error{File: p.path(), Tensor: p.Source, Class: ErrConflict, Detail: fmt.Sprintf("%q is the same parameter %q", other.Parts[0].Source, w.Key)}
	}
	if w.Action != InitAction {
		if err := w.check(); err != nil {
			return err
		}
		w.Action = l.action(&w)
	}
	found[w.Key] = w
	return nil
}

// check refuses stored values that no parameter can be made of.
func (w *PlannedWeight) check() error {
	want := w.slot.Tensor().DType()
	for _, p := range w.Parts {
		if p.dtype != 0 && want.IsFloatingPoint() == p.dtype.IsFloatingPoint() {
			continue
		}
		kind := "an integer dtype"
		if want.IsFloatingPoint() {
			kind = "a floating-point dtype"
		}
		return &Error{File: p.path(), Tensor: p.Source, Class: ErrBadDType, Expected: kind, Actual: p.FileDType}
	}
	return nil
}

func (l *loader) action(w *PlannedWeight) Action {
	t := w.slot.Tensor()
	for _, p := range w.Parts {
		if p.dtype != t.DType() {
			return CastAction
		}
	}
	p := w.Parts[0]
	if p.file == nil {
		return ReadAction
	}
	info, _ := p.file.Tensor(p.Source)
	if l.mapped && info.Aligned() && info.Bytes > 0 && p.place.run() && p.place.numel() == t.Numel() {
		return MapAction
	}
	return ReadAction
}

// ignorable reports whether a checkpoint's key that is no parameter has no meaning: buffers that the model
// computes, and what the class says.
func (l *loader) ignorable(key string) bool {
	for _, suffix := range []string{"rotary_emb.inv_freq", "position_ids"} {
		if !strings.HasSuffix(key, suffix) {
			continue
		}
		for name := range l.slots {
			if strings.HasSuffix(name, suffix) {
				return true
			}
		}
	}
	return matchesAny(l.class.ignoreUnexpected, key) || l.gguf() != nil && matchesAny(l.gguf().unused, key)
}

func matchesAny(patterns []*regexp.Regexp, key string) bool {
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(key) })
}

// planTies decides for each tie which side the value comes from.
func (l *loader) planTies(found map[string]PlannedWeight) {
	l.plan.TiedKeys, l.compare = wantedTies(l.model), map[string]string{}
	for _, target := range slices.Sorted(maps.Keys(l.plan.TiedKeys)) {
		source := l.plan.TiedKeys[target]
		_, haveSource := found[source]
		t, haveTarget := found[target]
		switch {
		case haveSource && haveTarget && t.Action != InitAction:
			l.compare[target] = source
		case haveSource:
			delete(found, target)
		case haveTarget: // its value goes to the source
			delete(found, target)
			t.slot, t.Key = l.slots[source], source
			found[source] = t
		default:
			l.plan.Warnings = append(l.plan.Warnings, fmt.Sprintf("%s and %s are tied and both missing from the checkpoint", target, source))
			l.plan.MissingKeys = append(l.plan.MissingKeys, target)
		}
	}
}

// separate has weights read that would be mapped where another one is: in a file of PyTorch's, tensors may share a
// storage, and the model's parameters don't, but for its ties.
func (l *loader) separate() {
	type extent struct {
		weight     *PlannedWeight
		start, end int64
	}
	mapped := map[*weights.File][]extent{}
	for i := range l.plan.Weights {
		if w := &l.plan.Weights[i]; w.Action == MapAction {
			p := &w.Parts[0]
			info, _ := p.file.Tensor(p.Source)
			start := info.Offset + int64(p.place.from.offset*p.dtype.ItemSize())
			mapped[p.file] = append(mapped[p.file], extent{w, start, start + p.FileBytes})
		}
	}
	for _, list := range mapped {
		slices.SortStableFunc(list, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
		last := list[0]
		for _, e := range list[1:] {
			tied := l.compare[e.weight.Key] == last.weight.Key || l.compare[last.weight.Key] == e.weight.Key
			if e.start < last.end && !tied {
				e.weight.Action = ReadAction
			} else if e.end > last.end {
				last = e
			}
		}
	}
}

// planRest lists all weights in the model's order and finds what is missing.
func (l *loader) planRest(found map[string]PlannedWeight) {
	for _, s := range nn.Slots(l.model) {
		_, tied := l.plan.TiedKeys[s.Name]
		if s.Kind == nn.Transient || tied && l.compare[s.Name] == "" {
			continue
		}
		w, ok := found[s.Name]
		if !ok {
			if !matchesAny(l.class.ignoreMissing, s.Name) {
				l.plan.MissingKeys = append(l.plan.MissingKeys, s.Name)
			}
			w = PlannedWeight{Key: s.Name, Action: InitAction, slot: s}
		}
		t := s.Tensor()
		w.DType, w.Shape, w.Bytes = t.DType().String(), nonNil(t.Shape()), int64(t.Numel())*int64(t.DType().ItemSize())
		l.plan.Weights = append(l.plan.Weights, w)
	}
}
