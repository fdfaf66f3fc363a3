package pretrained

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained/hub"
	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// defaultAdapter is the name of an adapter that is given none.
const defaultAdapter = "default"

// LoadAdapterOptions are the optional arguments of LoadAdapter.
type LoadAdapterOptions struct {
	Name string // default: "default"

	// IsTrainable has the adapter trained. Default: the model goes into evaluation mode, and adapters are not trained
	// until SetAdapter or EnableAdapters says so.
	IsTrainable bool

	// Hotswap puts the new adapter in the place of the one of that name (see EnablePeftHotswap). Default: if
	// EnablePeftHotswap was called and there is one of that name.
	Hotswap torch.Opt[bool]

	// Strict makes tensors of the adapter that the file lacks, and others that it has, errors.
	Strict bool

	// Config and StateDict are the adapter in place of files; the path is then empty. Names are those of peft's files,
	// with or without their prefix base_model.model.
	Config    *peft.Config
	StateDict iter.Seq2[string, *torch.Tensor]

	// UseSafetensors true accepts adapter_model.safetensors only, false adapter_model.bin only. Default: the former if
	// there, else the latter.
	UseSafetensors torch.Opt[bool]

	// These are as in Options.
	Subfolder        string
	Revision         string
	Token            hub.Token
	NoToken          bool
	CacheDir         string
	ForceDownload    bool
	LocalFilesOnly   bool
	DownloadProgress func(hub.Progress)
}

// AdapterReport says what loading an adapter did.
type AdapterReport struct {
	Path           string   `json:"path"`
	Name           string   `json:"name"`
	Type           string   `json:"type"` // peft_type
	Parameters     int64    `json:"parameters"`
	MissingKeys    []string `json:"missing_keys"`    // of the adapter, not in the file; as a new adapter has them
	UnexpectedKeys []string `json:"unexpected_keys"` // in the file only
	Warnings       []string `json:"warnings"`
}

// write adds the report to that of the model, for people.
func (r *AdapterReport) write(b *strings.Builder) {
	if r == nil {
		return
	}
	fmt.Fprintf(b, "  adapter     %s: %s from %s, %s parameters\n", r.Name, r.Type, r.Path, thousands(r.Parameters))
	for _, k := range foldLayers(r.MissingKeys) {
		fmt.Fprintf(b, "  missing     %s: of the adapter, as a new one has it\n", k)
	}
	for _, k := range foldLayers(r.UnexpectedKeys) {
		fmt.Fprintf(b, "  unexpected  %s: in the adapter's file only\n", k)
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(b, "  note        adapter: %s\n", w)
	}
}

// complete has empty lists in place of nil ones.
func (r *AdapterReport) complete() *AdapterReport {
	if r == nil {
		return nil
	}
	out := *r
	out.MissingKeys, out.UnexpectedKeys, out.Warnings = nonNil(r.MissingKeys), nonNil(r.UnexpectedKeys), nonNil(r.Warnings)
	return &out
}

// LoadAdapter puts the adapter of a folder, or of an id of the hub, into the model (load_adapter). The first adapter is
// active; a further one when SetAdapter says so. An error leaves the model as it was. Of a model with offloaded weights
// the adapter is where its layers run; DoRA and modules_to_save, which need the weights' values, are refused on
// those.
func (p *PreTrainedModel) LoadAdapter(ctx context.Context, path string, opts ...LoadAdapterOptions) (*AdapterReport, error) {
	var o LoadAdapterOptions
	if len(opts) > 0 {
		o = opts[0]
	}
	name := o.Name
	if name == "" {
		name = defaultAdapter
	}
	a := p.adapters()
	there := a.Config(name) != nil
	swap := o.Hotswap.Or(a.HotswapEnabled() && there)
	switch {
	case swap && !there:
		return nil, &Error{Class: ErrArgument, Detail: "To hotswap an adapter, there must already be an existing adapter with the same adapter name."}
	case !swap && there:
		return nil, &Error{Class: ErrArgument, Detail: "Adapter with name " + name + " already exists. Please use a different name."}
	}
	config, state, err := o.read(ctx, path)
	defer func() {
		for _, t := range state {
			if o.StateDict == nil {
				t.Close()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	config.InferenceMode = !o.IsTrainable
	r := &AdapterReport{Path: path, Name: name, Type: string(config.PeftType)}
	if swap {
		err = a.Hotswap(name, config, state)
	} else {
		var info peft.LoadInfo
		info, err = a.Load(config, name, state, o.Strict)
		r.MissingKeys, r.UnexpectedKeys = info.Missing, info.Unexpected
	}
	if err != nil {
		return nil, inFile(err, path)
	}
	if !o.IsTrainable {
		p.Eval()
		a.Freeze()
	}
	p.Adapters = a
	r.Warnings = a.Config(name).Warnings
	if named, err := a.StateDict(name); err == nil {
		for _, t := range named {
			r.Parameters += int64(t.Numel())
		}
	}
	return r, nil
}

// adapters are the model's, or those that it would have.
func (p *PreTrainedModel) adapters() *peft.Adapters {
	if p.Adapters != nil {
		return p.Adapters
	}
	info := peft.ModelInfo{ModelType: p.config.Base().ModelType, Device: devices.memory(p.InputDevice())}
	for path, module := range nn.NamedModules(p.self) {
		if e := p.InputEmbeddings(); e != nil && module == any(e) {
			info.InputEmbeddings = path
		}
		if l := p.OutputEmbeddings(); l != nil && module == any(l) {
			info.OutputEmbeddings = path
		}
	}
	return peft.New(p.self, info)
}

// AddAdapter puts a new adapter into the model, and makes it the active one, to be trained: from now on only it is,
// with the modules and biases that its config names (add_adapter). The name is "default" if it is empty.
func (p *PreTrainedModel) AddAdapter(config *peft.Config, name string) error {
	if name == "" {
		name = defaultAdapter
	}
	a := p.adapters()
	c := config.Clone()
	c.BaseModelNameOrPath = p.path
	if err := a.Add(c, name); err != nil {
		return err
	}
	p.Adapters = a
	return a.Set(name)
}

// withAdapters is the model's, or an error.
func (p *PreTrainedModel) withAdapters() (*peft.Adapters, error) {
	if p.Adapters == nil || len(p.Adapters.Names()) == 0 {
		return nil, &Error{Class: ErrArgument, Detail: "No adapter loaded. Please load an adapter first."}
	}
	return p.Adapters, nil
}

// withoutAdapters refuses what would change the layers below them.
func (p *PreTrainedModel) withoutAdapters(what string) error {
	if _, err := p.withAdapters(); err == nil {
		return &Error{Class: ErrUnsupported, Detail: what + " of " + p.Class(), Actual: "a model with adapters",
			Remedy: "do it before there are any, or merge and unload them"}
	}
	return nil
}

// SetAdapter makes these adapters the active ones, in place of others, and has them trained (set_adapter).
func (p *PreTrainedModel) SetAdapter(names ...string) error {
	a, err := p.withAdapters()
	if err != nil {
		return err
	}
	return a.Set(names...)
}

// EnableAdapters has the active adapters take part again (enable_adapters). Unlike in transformers 5.23 this holds for
// modules_to_save, too.
func (p *PreTrainedModel) EnableAdapters() error {
	a, err := p.withAdapters()
	if err == nil {
		a.Enable()
	}
	return err
}

// DisableAdapters has the model compute as it would without adapters (disable_adapters).
func (p *PreTrainedModel) DisableAdapters() error {
	a, err := p.withAdapters()
	if err != nil {
		return err
	}
	return a.Disable()
}

// ActiveAdapters are the names of the active adapters, disabled ones too; none without adapters (active_adapters).
func (p *PreTrainedModel) ActiveAdapters() []string {
	if p.Adapters == nil {
		return nil
	}
	return p.Adapters.Active()
}

// DeleteAdapter takes adapters out of the model and frees them (delete_adapter). If no active one is left, the first by
// name becomes active.
func (p *PreTrainedModel) DeleteAdapter(names ...string) error {
	a, err := p.withAdapters()
	if err != nil {
		return err
	}
	return a.Delete(names...)
}

// PeftConfig are the configs of the adapters by name (peft_config).
func (p *PreTrainedModel) PeftConfig() map[string]*peft.Config {
	configs := map[string]*peft.Config{}
	if p.Adapters != nil {
		for _, name := range p.Adapters.Names() {
			configs[name] = p.Adapters.Config(name)
		}
	}
	return configs
}

// GetAdapterStateDict are the tensors of an adapter, of the first active one if the name is empty, under peft's names
// without base_model.model. and the adapter's name (get_adapter_state_dict). They share the data of those in the
// model.
func (p *PreTrainedModel) GetAdapterStateDict(name string) (map[string]*torch.Tensor, error) {
	a, err := p.withAdapters()
	if err != nil {
		return nil, err
	}
	if name == "" {
		active := a.Active()
		if len(active) == 0 {
			return nil, &Error{Class: ErrArgument, Detail: "no adapter is active"}
		}
		name = active[0]
	}
	state, err := a.StateDict(name)
	if err != nil {
		return nil, err
	}
	return maps.Collect(state), nil
}

// EnablePeftHotswap makes room for a rank of up to targetRank in adapters that are loaded from now on, so that
// LoadAdapter with the name of one puts another in its place: the same tensors, other values (enable_peft_hotswap). It
// comes before the first adapter.
func (p *PreTrainedModel) EnablePeftHotswap(targetRank int) error {
	a := p.adapters()
	if err := a.EnableHotswap(targetRank); err != nil {
		return err
	}
	p.Adapters = a
	return nil
}

// MergeAdapter folds adapters into the weights, so that layers cost what they cost without; see peft.Adapters.Merge.
func (p *PreTrainedModel) MergeAdapter(opts ...peft.MergeOptions) error {
	a, err := p.withAdapters()
	if err != nil {
		return err
	}
	return a.Merge(opts...)
}

// UnmergeAdapter takes merged adapters out of the weights, which are again what they were, to the last bit.
func (p *PreTrainedModel) UnmergeAdapter() error {
	a, err := p.withAdapters()
	if err == nil {
		a.Unmerge()
	}
	return err
}

// MergeAndUnload folds adapters into the weights for good (merge_and_unload of peft): the model is one without adapters,
// which saves as such. Weights that were tied and differ now are not tied any more, as the config's
// tie_word_embeddings then says.
func (p *PreTrainedModel) MergeAndUnload(opts ...peft.MergeOptions) error {
	a, err := p.withAdapters()
	if err != nil {
		return err
	}
	if err := a.MergeAndUnload(opts...); err != nil {
		return err
	}
	p.Adapters = nil
	return p.untie()
}

// UnloadAdapters takes all adapters out (unload of peft).
func (p *PreTrainedModel) UnloadAdapters() error {
	a, err := p.withAdapters()
	if err != nil {
		return err
	}
	if err := a.Unload(); err != nil {
		return err
	}
	p.Adapters = nil
	return nil
}

// untie makes all tied tensors ones of their own if some are not the same any more: a config ties all or none.
func (p *PreTrainedModel) untie() error {
	slots := slotsByName(p.self)
	same := func(target string) bool { return slots[target].Tensor() == slots[p.ties[target]].Tensor() }
	if !slices.ContainsFunc(slices.Collect(maps.Keys(p.ties)), func(target string) bool { return !same(target) }) {
		return nil
	}
	err := torch.TryDo(func() {
		torch.NoGrad(func() {
			for target := range p.ties {
				if t := slots[target]; same(target) {
					t.Set(t.Tensor().Clone().SetRequiresGrad(t.Tensor().RequiresGrad()))
				}
			}
		})
	})
	if err != nil {
		return &Error{Detail: "untying weights of " + p.Class(), Err: err}
	}
	p.ties = map[string]string{}
	if f, ok := configFields(p.config)["tie_word_embeddings"]; ok {
		f.SetBool(false)
	} else {
		p.config.Base().raw["tie_word_embeddings"] = false
	}
	return nil
}

// withoutPrefix is a name of peft's files below the model.
func withoutPrefix(name string) string { return strings.TrimPrefix(name, "base_model.model.") }
