package pretrained

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// FromPretrained loads a model by its config's model_type and the Auto class.
func (a *AutoClass) FromPretrained(ctx context.Context, path string, opts Options) (Model, error) {
	opts.Class = a.Name
	m, _, err := Load(ctx, path, opts)
	return m, err
}

// Load loads a model from a directory, from one checkpoint file with config.json beside it, or by its id on
// the hub, and reports what it did. The model is in evaluation mode and belongs to the caller: Close frees it.
//
// A folder or id with an adapter_config.json is an adapter of package peft. It is loaded over the model beside it or,
// where there is none, over the one that its config names (base_model_name_or_path). Options.Adapter names another one.
func Load(ctx context.Context, path string, opts Options) (Model, *Report, error) {
	m, r, files, err := load(ctx, path, opts)
	switch {
	case opts.Adapter != "" && err == nil:
		return withAdapter(ctx, m, r, opts.Adapter, opts)
	case opts.Adapter == "" && errors.Is(err, errOnlyAdapter):
		return overBase(ctx, path, opts)
	case err == nil && files.adapter:
		if files.commit != "" { // the adapter is of the same one
			opts.Revision = files.commit
		}
		return withAdapter(ctx, m, r, path, opts)
	}
	return m, r, err
}

// load is Load without adapters.
func load(ctx context.Context, path string, opts Options) (Model, *Report, *files, error) {
	start := time.Now()
	l, err := prepare(ctx, path, opts, false)
	if err != nil {
		return nil, nil, nil, err
	}
	defer l.close()
	warnings, err := l.fill(ctx)
	if err != nil {
		l.model.Close()
		return nil, nil, nil, err
	}
	l.model.base().path = path
	p := l.plan
	if l.gguf() == nil { // what came from GGUF is saved as if it had been built
		back := l.names.reverse(false)
		l.model.base().file = &back
	}
	r := &Report{Path: p.Path, Folder: l.files.dir, Class: p.Class, DType: p.DType, DTypeSource: p.DTypeSource, DeviceMap: p.DeviceMap,
		MissingKeys: p.MissingKeys, UnexpectedKeys: p.UnexpectedKeys, MismatchedKeys: p.MismatchedKeys,
		TiedKeys: l.model.base().ties, Warnings: append(slices.Clone(p.Warnings), warnings...),
		NumParameters: l.model.NumParameters(), MemoryFootprint: l.model.MemoryFootprint(), PeakRSSBytes: peakRSS()}
	for _, w := range p.Weights {
		if w.Action != InitAction && l.onDisk[w.Key] == nil {
			r.BytesRead += w.FileBytes()
		}
	}
	r.Seconds = time.Since(start).Seconds()
	return l.model, r, l.files, nil
}

// fill runs the pipeline from the plan on: stream, initialise, tie, check.
func (l *loader) fill(ctx context.Context) (warnings []string, err error) {
	if err := l.stream(ctx); err != nil {
		return nil, err
	}
	file := l.path()
	var spillErr error
	err = torch.TryDo(func() {
		l.initialise()
		if spillErr = l.spillRest(ctx); spillErr != nil {
			return
		}
		warnings = l.tie()
		nn.Eval(l.model)
		l.model.base().checkpointAsConfigured()
		l.dispatch()
	})
	if err != nil {
		return nil, &Error{File: file, Detail: "initialising", Err: err}
	}
	if spillErr != nil {
		return nil, spillErr
	}
	return warnings, errors.Join(inFile(l.checkComplete(), file), ctx.Err())
}

// initialise gives what the checkpoint lacks, and buffers that are not saved, their first values.
func (l *loader) initialise() {
	skip := maps.Clone(l.plan.TiedKeys)
	for key := range l.onDisk {
		skip[key] = ""
	}
	initialise(l.model, func(name string) torch.Device { return devices.memory(l.places[name].device) }, skip)
}

// tie makes tied names one tensor. Two that are both in the checkpoint and differ stay apart.
func (l *loader) tie() (warnings []string) {
	ties := l.plan.TiedKeys
	slots := slotsByName(l.model)
	for _, target := range slices.Sorted(maps.Keys(ties)) {
		source := ties[target]
		t, s := slots[target], slots[source]
		if l.compare[target] != "" {
			a, b := l.value(t), l.value(s)
			same := a.Equal(b)
			a.Close()
			b.Close()
			if !same {
				delete(ties, target)
				warnings = append(warnings, fmt.Sprintf("%s and %s should be tied, but differ in the checkpoint: they are not tied "+
					"(set tie_word_embeddings to false in config.json)", target, source))
				continue
			}
		}
		old := t.Tensor()
		t.Set(s.Tensor())
		old.Close()
	}
	l.model.base().ties = ties
	return warnings
}

// checkComplete makes sure that no tensor without data escapes, but those that are offloaded.
func (l *loader) checkComplete() error {
	d := l.model.base().dispatch
	for _, s := range nn.Slots(l.model) {
		if t := s.Tensor(); devices.of(t) == torch.Meta && (d == nil || d.away[t] == nil) {
			return &Error{Tensor: s.Name, Class: ErrMissingTensor, Detail: "left without data"}
		}
	}
	return nil
}
