package pretrained

import (
	"context"
	"io"
	"maps"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained/gguf"
	"github.com/torchgo/torchgo/torch"
)

// GGUFOptions are the arguments of SaveGGUF.
type GGUFOptions struct {
	// Type is that of the tensors of two dimensions and more: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1. One whose rows
	// are no multiple of its blocks gets F16; tensors of one dimension are F32. Default: that of the model's dtype.
	Type torch.Opt[gguf.Type]

	Metadata *gguf.Metadata // further keys: a tokenizer's, say

	// Progress is called as tensors are written, with those done and all.
	Progress func(done, total int64)
}

// ggufOutput is the tensor that a file of a tied model lacks.
const ggufOutput = "output.weight"

// ggufDTypes are the types that have a dtype of torch.
var ggufDTypes = map[torch.DType]gguf.Type{torch.Float32: gguf.F32, torch.Float16: gguf.F16, torch.BFloat16: gguf.BF16}

// ggufFileTypes are the values of general.file_type, as llama.cpp numbers them.
var ggufFileTypes = map[string]uint32{"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}

// SaveGGUF writes m as a GGUF file, which llama.cpp and from_pretrained's GGUFFile read: config and names by the
// architecture's GGUF, the tensors quantized as gguf-py does. What the format can't say of a config (another activation,
// a scaling of RoPE other than linear or yarn) is an error. The tokenizer is in opts.Metadata or is missing.
//
// The file appears under its name when it is complete; an error leaves an old one.
func SaveGGUF(ctx context.Context, m Model, path string, opts GGUFOptions) error {
	var tensors []gguf.Source
	var metadata *gguf.Metadata
	var err error
	if closed := torch.TryDo(func() { tensors, metadata, err = savedGGUF(m, opts) }); closed != nil {
		return &Error{File: path, Class: ErrArgument, Detail: "saving " + m.Class(), Err: closed}
	}
	if err != nil {
		return inFile(err, path)
	}
	if opts.Progress != nil {
		for i := range tensors {
			inner := tensors[i].Write
			tensors[i].Write = func(w io.Writer) error {
				err := inner(w)
				if err == nil {
					opts.Progress(int64(i+1), int64(len(tensors)))
				}
				return err
			}
		}
	}
	return gguf.WriteFile(ctx, path, metadata, tensors)
}

func savedGGUF(m Model, opts GGUFOptions) ([]gguf.Source, *gguf.Metadata, error) {
	p := m.base()
	g := p.arch.GGUF
	if g == nil || g.Class != m.Class() {
		expected := "a class that GGUF files can have"
		if g != nil {
			expected = g.Class
		}
		return nil, nil, &Error{Class: ErrUnsupported, Detail: "class", Expected: expected, Actual: m.Class()}
	}
	own, ok := ggufDTypes[m.DType()]
	if _, set := opts.Type.Get(); !ok && !set {
		return nil, nil, &Error{Class: ErrUnsupported, Detail: "dtype", Expected: "float32, float16 or bfloat16", Actual: m.DType().String()}
	}
	typ := opts.Type.Or(own)
	if _, ok := ggufFileTypes[typ.String()]; !ok {
		return nil, nil, &Error{Class: ErrUnsupported, Detail: "type of tensors", Expected: strings.Join(slices.Sorted(maps.Keys(ggufFileTypes)), ", "), Actual: typ.String()}
	}
	entries, err := p.savedEntries(nil)
	if err == nil {
		entries, err = withoutTies(entries, p.classTies())
	}
	if err != nil {
		return nil, nil, err
	}
	back := g.reverse(p.class.prefix(p.arch))
	originals, err := p.originals(entries, &back, true)
	if err != nil {
		return nil, nil, err
	}
	var tensors []gguf.Source
	for _, o := range originals {
		if !slices.ContainsFunc(g.rules, func(r KeyRule) bool { return regexp.MustCompile(r.Pattern).MatchString(o.name) }) {
			return nil, nil, &Error{Tensor: o.name, Class: ErrUnsupported, Expected: "a tensor that GGUF files of model type " + p.arch.ModelType + " have a name for"}
		}
		from, ok := ggufDTypes[o.dtype]
		if !ok {
			return nil, nil, &Error{Tensor: o.name, Class: ErrBadDType, Expected: "float32, float16 or bfloat16", Actual: o.dtype.String()}
		}
		if err := p.hasData(o); err != nil {
			return nil, nil, err
		}
		to := typ
		switch {
		case len(o.shape) < 2:
			to = gguf.F32
		case o.shape[len(o.shape)-1]%typ.BlockLen() != 0:
			to = gguf.F16
		}
		tensors = append(tensors, gguf.Source{Name: o.name, Type: to, Shape: o.shape, From: from,
			Write: func(w io.Writer) error { return write(w, func() (*torch.Tensor, error) { return p.made(o) }) }})
	}
	metadata := gguf.NewMetadata()
	if opts.Metadata != nil {
		metadata = opts.Metadata.Clone()
	}
	untied := slices.ContainsFunc(tensors, func(s gguf.Source) bool { return s.Name == ggufOutput })
	if err := g.putConfig(metadata, p.arch, m.Config(), untied); err != nil {
		return nil, nil, err
	}
	SetGGUFType(metadata, typ)
	return tensors, metadata, nil
}

// SetGGUFType sets what metadata say of the type of most tensors.
func SetGGUFType(m *gguf.Metadata, t gguf.Type) {
	if fileType, ok := ggufFileTypes[t.String()]; ok {
		m.Set("general.file_type", fileType)
	} else {
		m.Delete("general.file_type")
	}
	if t.BlockLen() > 1 {
		m.Set("general.quantization_version", uint32(2)) // of ggml's blocks
	}
}

// reverse are the rules from the names of a model to those of its GGUF files.
func (g *GGUF) reverse(prefix string) (back fileRules) {
	for _, name := range slices.Sorted(maps.Keys(g.Tensors)) {
		pattern := regexp.QuoteMeta(g.Tensors[name])
		to := name + `.\1`
		if strings.Contains(name, "*") {
			pattern = strings.Replace(pattern, `\*`, `(\d+)`, 1)
			to = strings.Replace(name, "*", `\1`, 1) + `.\2`
		}
		if prefix != "" {
			pattern = "(?:" + regexp.QuoteMeta(prefix+".") + ")?" + pattern
		}
		rule, err := KeyRule{"^" + pattern + `\.(weight|bias)$`, to}.compile(scope{})
		if err != nil {
			panic("pretrained: GGUF name " + name + ": " + err.Error()) // compile has seen it
		}
		back.rules = append(back.rules, rule)
	}
	for _, c := range g.Converters {
		back.converters = append(back.converters, c.Reverse().compile(scope{}))
	}
	return back
}

// ggufFloats are the ends of the keys whose values are floats, though config.json may have an integer.
var ggufFloats = []string{"epsilon", "freq_base", "factor", "beta_fast", "beta_slow"}

// putConfig adds a config to metadata, and makes sure that the model would be built of it again.
func (g *GGUF) putConfig(metadata *gguf.Metadata, a *Architecture, c Config, untied bool) error {
	values := encodeFields(configFields(c))
	rope, _ := values["rope_parameters"].(map[string]any)
	name := g.Architectures[0]
	metadata.Set(architectureKey, name)
	put := func(key string, v any) error {
		x, isNumber := asFloat(v)
		i, isInt := asInt(v)
		isFloat := slices.ContainsFunc(ggufFloats, func(end string) bool { return strings.HasSuffix(key, end) })
		switch b, isBool := v.(bool); {
		case isBool:
			metadata.Set(key, b)
		case isNumber && isFloat:
			metadata.Set(key, float32(x))
		case isInt && i >= 0 && i <= math.MaxUint32:
			metadata.Set(key, uint32(i))
		default:
			return &Error{Class: ErrUnsupported, Detail: "config of a GGUF file: " + key, Expected: "a number", Actual: Describe(v)}
		}
		return nil
	}
	keys := maps.Clone(g.Config)
	maps.Copy(keys, g.Optional)
	keys["vocab_size"] = "vocab_size"
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		v := values[keys[key]]
		if v == nil {
			v = rope[keys[key]]
		}
		if v == nil && g.Config[key] == "" {
			continue
		}
		if err := put(name+"."+key, v); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(ggufTokens)) {
		if i, ok := asInt(values[ggufTokens[key]]); ok && i >= 0 {
			if err := put(key, int64(i)); err != nil {
				return err
			}
		}
	}
	scaling := name + ".rope.scaling."
	for _, key := range metadata.Keys() { // another file's, whose scaling need not be this one's
		if strings.HasPrefix(key, scaling) || key == name+".rope.scale_linear" {
			metadata.Delete(key)
		}
	}
	if kind, _ := rope["rope_type"].(string); kind == "linear" || kind == "yarn" {
		metadata.Set(scaling+"type", kind)
		for _, from := range slices.Sorted(maps.Keys(ropeScaling)) {
			if v := rope[ropeScaling[from]]; v != nil {
				if err := put(scaling+from, v); err != nil {
					return err
				}
			}
		}
	}
	return g.sameConfig(metadata, a, values, untied)
}

// ggufSilent are the keys that a GGUF file does not say and that no value depends on.
var ggufSilent = []string{"id2label", "label2id", "initializer_range", "use_cache", "pad_token_id", "bos_token_id", "eos_token_id", "unk_token_id",
	"pretraining_tp", "attention_dropout"}

// sameConfig compares values with those of the config that a reader of the metadata makes.
func (g *GGUF) sameConfig(metadata *gguf.Metadata, a *Architecture, values map[string]any, untied bool) error {
	raw, err := ggufConfig(a, metadata, untied)
	if err != nil {
		return err
	}
	again := a.NewConfig()
	if err := readConfig(again, raw, nil); err != nil {
		return err
	}
	read := encodeFields(configFields(again))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if _, ok := baseKeys[key]; ok || slices.Contains(ggufSilent, key) || alike(values[key], read[key]) {
			continue
		}
		return &Error{Class: ErrUnsupported, Detail: "config of a GGUF file: " + key, Expected: Describe(read[key]) + ", as the format says it", Actual: Describe(values[key])}
	}
	return nil
}

// alike compares JSON values, numbers as float32.
func alike(a, b any) bool {
	x, ok := asFloat(a)
	y, ok2 := asFloat(b)
	if ok && ok2 {
		return float32(x) == float32(y)
	}
	m, ok := a.(map[string]any)
	n, ok2 := b.(map[string]any)
	if ok && ok2 {
		return maps.EqualFunc(m, n, alike)
	}
	return reflect.DeepEqual(a, b)
}
