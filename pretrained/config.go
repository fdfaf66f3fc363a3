package pretrained

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/torch/nn"
)

// TransformersVersion is the version of transformers whose formats are written; SavePretrained records it.
const TransformersVersion = "5.23.0"

// Config is a model's config.json: a pointer to a struct that embeds ConfigBase and whose JSON tags are
// the names in the file.
type Config interface {
	Base() *ConfigBase
	// Validate refuses values that no model can be built from, before anything is built: sizes that are
	// zero, negative or absurd, and such that don't fit together. See CheckBounds.
	Validate() error
}

// ConfigBase holds the keys that all models share. Keys of the file that neither it nor the model knows
// are kept and saved again.
type ConfigBase struct {
	ModelType            string         `json:"model_type"`
	Architectures        []string       `json:"architectures"`
	DType                string         `json:"dtype"`
	OutputHiddenStates   bool           `json:"output_hidden_states"`
	OutputAttentions     bool           `json:"output_attentions"`
	ReturnDict           bool           `json:"return_dict"`
	ChunkSizeFeedForward int            `json:"chunk_size_feed_forward"`
	IsEncoderDecoder     bool           `json:"is_encoder_decoder"`
	ID2Label             map[int]string `json:"id2label"`
	Label2ID             map[string]int `json:"label2id"`
	ProblemType          string         `json:"problem_type"`

	Attn     nn.AttentionKind `json:"-"` // the implementation the model runs with
	Warnings []string         `json:"-"` // what is odd about the values, for the report

	raw    map[string]any // the file as it was read
	asRead map[string]any // the typed fields as they were after reading
}

// NewConfigBase returns transformers' defaults for a model type; among them two labels.
func NewConfigBase(modelType string) ConfigBase {
	c := ConfigBase{ModelType: modelType, ReturnDict: true}
	c.SetNumLabels(2)
	return c
}

// Base implements Config.
func (c *ConfigBase) Base() *ConfigBase { return c }

// NumLabels is the number of classes of a classification head.
func (c *ConfigBase) NumLabels() int { return len(c.ID2Label) }

// SetNumLabels renames the classes LABEL_0, LABEL_1, … unless there are n already.
func (c *ConfigBase) SetNumLabels(n int) {
	if c.ID2Label != nil && len(c.ID2Label) == n {
		return
	}
	c.ID2Label, c.Label2ID = defaultLabels(n)
}

// Extra returns the value of a key of the file that has no field, and whether it was there.
func (c *ConfigBase) Extra(key string) (any, bool) {
	v, ok := c.raw[key]
	return v, ok
}

// Drop forgets a key of the file that has no field, so that it isn't saved again.
func (c *ConfigBase) Drop(key string) { delete(c.raw, key) }

// Warn adds a warning, unless it is there.
func (c *ConfigBase) Warn(format string, args ...any) {
	if w := fmt.Sprintf(format, args...); !slices.Contains(c.Warnings, w) {
		c.Warnings = append(c.Warnings, w)
	}
}

// Completer is a config whose values follow from one another, or have had other names: Complete fills in what the
// file left out, before Validate (transformers' __post_init__).
type Completer interface {
	Complete() error
}

func defaultLabels(n int) (map[int]string, map[string]int) {
	names, ids := make(map[int]string, n), make(map[string]int, n)
	for i := range n {
		name := fmt.Sprintf("LABEL_%d", i)
		names[i], ids[name] = name, i
	}
	return names, ids
}

// Limits of what a config may ask for: far above any published model, low enough that nothing overflows
// and that a model of any of them builds on the meta device in no time.
const (
	MaxLayers = 10_000
	MaxSize   = 1 << 24 // of one dimension
	MaxLabels = 1 << 20
)

// Bound is the range that a config value must be in.
type Bound struct {
	Key      string
	Value    int
	Min, Max int
}

// CheckBounds returns an error for the first value out of its range.
func CheckBounds(bounds ...Bound) error {
	for _, b := range bounds {
		if b.Value < b.Min || b.Value > b.Max {
			return configError(b.Key, fmt.Sprintf("%d to %d", b.Min, b.Max), fmt.Sprint(b.Value))
		}
	}
	return nil
}

// Probability returns an error unless 0 ≤ value ≤ 1.
func Probability(key string, value float64) error {
	if !(value >= 0 && value <= 1) {
		return configError(key, "a probability", fmt.Sprint(value))
	}
	return nil
}

// readConfig fills c, which holds the defaults of its model, from the object of a config.json and the
// caller's overrides of it.
func readConfig(c Config, raw, overrides map[string]any) error {
	base := c.Base()
	base.ReturnDict, base.ID2Label, base.Label2ID = true, nil, nil
	base.raw = maps.Clone(raw)
	own := base.ModelType
	merged := maps.Clone(raw)
	fields := configFields(c)
	overrides = maps.Clone(overrides)
	for k, v := range overrides {
		v = pyjson.FromJSON(cloneJSON(v))
		overrides[k] = v
		if _, known := fields[k]; !known && !hasKey(raw, k) && k != "num_labels" && k != "torch_dtype" {
			return unknownKey(k)
		}
		if !slices.Contains(labelKeys, k) {
			merged[k] = v
		}
	}
	if v, ok := overrides["torch_dtype"]; ok && overrides["dtype"] == nil {
		merged["dtype"] = v
		base.Warn("torch_dtype is the old name of dtype")
	} else if v, ok := merged["torch_dtype"]; ok && merged["dtype"] == nil {
		merged["dtype"] = v
	}
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if v, ok := merged[key]; ok {
			if err := setField(fields[key], key, v); err != nil {
				return err
			}
		}
	}
	base.asRead = encodeFields(fields)
	base.ModelType = own
	if err := setLabels(base, merged); err != nil {
		return err
	}
	for _, key := range labelKeys {
		if v := overrides[key]; v != nil {
			if err := setField(fields[key], key, v); err != nil {
				return err
			}
		}
	}
	for k, v := range overrides {
		if _, known := fields[k]; !known {
			base.raw[k] = v
		} else {
			delete(base.raw, k)
		}
	}
	if v := base.raw["per_layer_config"]; v != nil {
		return &Error{Class: ErrUnsupported, Detail: "per_layer_config", Expected: "layers that are alike", Actual: Describe(v)}
	}
	if c, ok := c.(Completer); ok {
		if err := c.Complete(); err != nil {
			return err
		}
	}
	if err := CheckBounds(Bound{"num_labels", base.NumLabels(), 0, MaxLabels}); err != nil {
		return err
	}
	switch base.ProblemType {
	case "", Regression, MultiLabelClassification:
	case SingleLabelClassification:
		if base.NumLabels() == 1 {
			return configError("problem_type", Regression+" for one label", SingleLabelClassification)
		}
	default:
		return configError("problem_type", fmt.Sprintf("%q, %q or %q", Regression, SingleLabelClassification,
			MultiLabelClassification), fmt.Sprintf("%q", shorten(base.ProblemType)))
	}
	return c.Validate()
}

// labelKeys are settled last when the caller gives them: over num_labels, and one without the other, as in
// transformers.
var labelKeys = []string{"id2label", "label2id"}

// setLabels settles id2label and num_labels, of which the latter wins.
func setLabels(base *ConfigBase, merged map[string]any) error {
	n := 2
	if base.ID2Label != nil {
		n = len(base.ID2Label)
	}
	if v := merged["num_labels"]; v != nil {
		i, ok := asInt(v)
		if !ok || i < 0 || i > MaxLabels {
			return configError("num_labels", fmt.Sprintf("0 to %d", MaxLabels), Describe(v))
		}
		n = i
	}
	base.SetNumLabels(n)
	return nil
}

// baseKeys are the keys whose defaults save_pretrained leaves out; all other fields are always written.
var baseKeys = map[string]any{
	"architectures": nil, "dtype": nil, "output_hidden_states": false,
	"output_attentions": false, "return_dict": true,
	"chunk_size_feed_forward": int64(0), "is_encoder_decoder": false, "problem_type": nil,
}

// droppedKeys are those that transformers takes from a config.json but does not write.
var droppedKeys = strings.Fields(`_name_or_path name_or_path _commit_hash torch_dtype num_labels
	transformers_version transformers_weights _is_quantized _auto_class _attn_implementation _attn_implementation_internal
	_experts_implementation_internal attn_implementation experts_implementation _post_init_done
	ignore_keys_at_rope_validation base_model_tp_plan base_model_pp_plan base_model_fsdp_plan
	distributed_config
	assistant_confidence_threshold assistant_lookbehind bad_words_ids begin_suppress_tokens
	diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size encoder_repetition_penalty
	epsilon_cutoff eta_cutoff exponential_decay_length_penalty forced_bos_token_id forced_eos_token_id
	length_penalty max_length min_length no_repeat_ngram_size num_assistant_tokens
	num_assistant_tokens_schedule num_beam_groups num_beams num_return_sequences output_scores
	remove_invalid_values repetition_penalty return_dict_in_generate suppress_tokens target_lookbehind
	temperature top_k top_p typical_p use_cache`)

// configJSON renders c as save_pretrained writes it, with some keys set.
func configJSON(c Config, set map[string]any) []byte {
	base := c.Base()
	out := map[string]any{}
	for k, v := range base.raw {
		if !slices.Contains(droppedKeys, k) {
			out[k] = v
		}
	}
	now := encodeFields(configFields(c))
	for k, v := range now {
		if raw, ok := base.raw[k]; ok && raw != nil && reflect.DeepEqual(v, base.asRead[k]) {
			v = raw // keep 0 an integer, say, where the field is a float
		}
		if def, ok := baseKeys[k]; ok && (reflect.DeepEqual(now[k], def) || v == nil) {
			delete(out, k)
			continue
		}
		out[k] = v
	}
	names, ids := defaultLabels(2)
	if maps.Equal(base.ID2Label, names) {
		delete(out, "id2label")
	} else {
		out["id2label"] = base.ID2Label
	}
	if maps.Equal(base.Label2ID, ids) {
		delete(out, "label2id")
	}
	out["transformers_version"] = TransformersVersion
	maps.Copy(out, set)
	return pyjson.Marshal(out)
}

func hasKey(m map[string]any, k string) bool {
	_, ok := m[k]
	return ok
}
