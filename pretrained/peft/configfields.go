package peft

import (
	"math"

	"github.com/torchgo/torchgo/internal/strictjson"
	"github.com/torchgo/torchgo/torch"
)

// field is a key of adapter_config.json.
type field struct {
	what string                                    // what its value is, for errors
	only Type                                      // the kind of adapter that has it; "": all
	null bool                                      // null is the same as no key
	get  func(c *Config) any                       // as pyjson writes it
	set  func(c *Config, v strictjson.Value) error // any error means that v is not what it should be
}

func (f field) of(t Type) bool { return f.only == "" || f.only == t }

// fields are all keys that peft's configs have.
var fields = map[string]field{
	"peft_type":               {get: func(c *Config) any { return string(c.PeftType) }, set: func(*Config, strictjson.Value) error { return nil }},
	"task_type":               text(func(c *Config) *string { return &c.TaskType }, nil),
	"auto_mapping":            {what: "an object", null: true, get: getAutoMapping, set: setAutoMapping},
	"peft_version":            text(func(c *Config) *string { return &c.PeftVersion }, PeftVersion),
	"base_model_name_or_path": text(func(c *Config) *string { return &c.BaseModelNameOrPath }, nil),
	"revision":                text(func(c *Config) *string { return &c.Revision }, nil),
	"inference_mode":          flag("", func(c *Config) *bool { return &c.InferenceMode }),
	"target_modules":          names("", func(c *Config) *Names { return &c.TargetModules }),
	"exclude_modules":         names("", func(c *Config) *Names { return &c.ExcludeModules }),
	"modules_to_save":         nameList("", func(c *Config) *[]string { return &c.ModulesToSave }),
	"fan_in_fan_out":          flag("", func(c *Config) *bool { return &c.FanInFanOut }),

	"r":                   rankField,
	"lora_alpha":          alphaField,
	"lora_dropout":        dropoutField,
	"bias":                biasField,
	"use_rslora":          flag(LoRA, func(c *Config) *bool { return &c.UseRSLoRA }),
	"use_dora":            flag(LoRA, func(c *Config) *bool { return &c.UseDoRA }),
	"lora_bias":           flag(LoRA, func(c *Config) *bool { return &c.LoraBias }),
	"init_lora_weights":   initField,
	"layers_to_transform": layersField,
	"layers_pattern":      nameList(LoRA, func(c *Config) *[]string { return &c.LayersPattern }),
	"rank_pattern":        patterns(func(c *Config) *[]Pattern[int] { return &c.RankPattern }, asInt, func(v int) any { return v }),
	"alpha_pattern":       patterns(func(c *Config) *[]Pattern[float64] { return &c.AlphaPattern }, asFloat, number),

	// IA³
	"feedforward_modules": names(IA3, func(c *Config) *Names { return &c.FeedforwardModules }),
	"init_ia3_weights":    initIA3Field,

	// How Python's peft made the first values of an adapter; a file has them already.
	"loftq_config":   beginning("loftq_config", map[string]any{}),
	"eva_config":     beginning("eva_config", nil),
	"corda_config":   beginning("corda_config", nil),
	"lora_ga_config": beginning("lora_ga_config", nil),

	// Settings of variants that are refused below.
	"megatron_core":     ignored("megatron.core"),
	"qalora_group_size": ignored(16),

	// Variants of LoRA that are not here.
	"megatron_config":         refused(nil),
	"trainable_token_indices": refused(nil),
	"velora_config":           refused(nil),
	"alora_invocation_tokens": refused(nil),
	"use_qalora":              refused(false),
	"monteclora_config":       refused(nil),
	"layer_replication":       refused(nil),
	"target_parameters":       refused(nil),
	"use_bdlora":              refused(nil),
	"arrow_config":            refused(nil),
	"kasa_config":             refused(nil),
	"ensure_weight_tying":     refused(false),
}

func text(at func(*Config) *string, unset any) field {
	return field{
		what: "a string", null: true,
		get: func(c *Config) any {
			if s := *at(c); s != "" {
				return s
			}
			return unset
		},
		set: func(c *Config, v strictjson.Value) (err error) {
			*at(c), err = v.AsString()
			return err
		},
	}
}

func flag(only Type, at func(*Config) *bool) field {
	return field{
		what: "true or false", only: only,
		get: func(c *Config) any { return *at(c) },
		set: func(c *Config, v strictjson.Value) (err error) {
			*at(c), err = v.AsBool()
			return err
		},
	}
}

// asStrings reads an array of strings; the result isn't nil.
func asStrings(v strictjson.Value) ([]string, error) {
	items, err := v.AsArray()
	list := make([]string, len(items))
	for i := range items {
		if err == nil {
			list[i], err = items[i].AsString()
		}
	}
	return list, err
}

func names(only Type, at func(*Config) *Names) field {
	return field{
		what: "a string or an array of strings", only: only, null: true,
		get: func(c *Config) any {
			switch n := *at(c); {
			case n.Pattern != "":
				return n.Pattern
			case n.List != nil:
				return n.List
			}
			return nil
		},
		set: func(c *Config, v strictjson.Value) (err error) {
			n := at(c)
			if v.Kind() != strictjson.KindString {
				n.List, err = asStrings(v)
			} else if n.Pattern, err = v.AsString(); n.Pattern == "" {
				n.List = []string{} // the empty expression matches no name
			}
			return err
		},
	}
}

// nameList is a list; one string is a list of one, an empty one of none.
func nameList(only Type, at func(*Config) *[]string) field {
	return field{
		what: "an array of strings", only: only, null: true,
		get: func(c *Config) any {
			if *at(c) == nil {
				return nil
			}
			return *at(c)
		},
		set: func(c *Config, v strictjson.Value) (err error) {
			if v.Kind() != strictjson.KindString {
				*at(c), err = asStrings(v)
				return err
			}
			s, err := v.AsString()
			if *at(c) = []string{}; s != "" {
				*at(c) = []string{s}
			}
			return err
		},
	}
}

// asInt reads an integer that fits an int; larger ones are out of every range here.
func asInt(v strictjson.Value) (int, error) {
	i, err := v.AsInt()
	return int(i), err
}

// asFloat reads a finite number.
func asFloat(v strictjson.Value) (float64, error) {
	f, err := v.AsFloat()
	if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
		err = strictjson.ErrType
	}
	return f, err
}

// number is a float as Python would have it: whole ones are its int, since peft's defaults are.
func number(f float64) any {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return int64(f)
	}
	return f
}

var rankField = field{
	what: "an integer", only: LoRA,
	get: func(c *Config) any { return c.R.Or(8) },
	set: func(c *Config, v strictjson.Value) error {
		r, err := asInt(v)
		c.R = torch.Some(r)
		return err
	},
}

var alphaField = field{
	what: "a finite number", only: LoRA,
	get: func(c *Config) any { return number(c.LoraAlpha.Or(8)) },
	set: func(c *Config, v strictjson.Value) error {
		a, err := asFloat(v)
		c.LoraAlpha = torch.Some(a)
		return err
	},
}

var dropoutField = field{
	what: "a probability", only: LoRA,
	get: func(c *Config) any { return c.LoraDropout },
	set: func(c *Config, v strictjson.Value) (err error) {
		c.LoraDropout, err = asFloat(v)
		return err
	},
}

var biasField = field{
	what: "none, all or lora_only", only: LoRA,
	get: func(c *Config) any {
		if c.Bias == "" {
			return string(BiasNone)
		}
		return string(c.Bias)
	},
	set: func(c *Config, v strictjson.Value) error {
		s, err := v.AsString()
		c.Bias = Bias(s)
		return err
	},
}

var initField = field{
	what: "true, false or a name", only: LoRA,
	get: func(c *Config) any {
		switch c.InitLoraWeights {
		case "", InitTrue:
			return true
		case InitFalse:
			return false
		}
		return string(c.InitLoraWeights)
	},
	set: func(c *Config, v strictjson.Value) error {
		if v.Kind() == strictjson.KindString {
			s, err := v.AsString()
			c.InitLoraWeights = Init(s)
			return err
		}
		b, err := v.AsBool()
		if c.InitLoraWeights = InitFalse; b {
			c.InitLoraWeights = InitTrue
		}
		return err
	},
}

var initIA3Field = field{
	what: "true or false", only: IA3,
	get: func(c *Config) any { return c.InitIA3Weights.Or(true) },
	set: func(c *Config, v strictjson.Value) error {
		b, err := v.AsBool()
		c.InitIA3Weights = torch.Some(b)
		return err
	},
}

var layersField = field{
	what: "an integer or an array of integers", only: LoRA, null: true,
	get: func(c *Config) any {
		if c.LayersToTransform == nil {
			return nil
		}
		list := make([]any, len(c.LayersToTransform))
		for i, n := range c.LayersToTransform {
			list[i] = n
		}
		return list
	},
	set: func(c *Config, v strictjson.Value) (err error) {
		items := []strictjson.Value{v}
		if v.Kind() != strictjson.KindNumber {
			items, err = v.AsArray()
		}
		c.LayersToTransform = make([]int, len(items))
		for i := range items {
			if err == nil {
				c.LayersToTransform[i], err = asInt(items[i])
			}
		}
		return err
	},
}

func patterns[T any](at func(*Config) *[]Pattern[T], as func(strictjson.Value) (T, error), write func(T) any) field {
	return field{
		what: "an object of numbers", only: LoRA, null: true,
		get: func(c *Config) any {
			out := map[string]any{}
			for _, p := range *at(c) {
				out[p.Name] = write(p.Value)
			}
			return out
		},
		set: func(c *Config, v strictjson.Value) error {
			o, err := v.AsObject()
			if err != nil {
				return err
			}
			for name, v := range o.All() {
				value, err := as(v)
				if err != nil {
					return err
				}
				*at(c) = append(*at(c), Pattern[T]{name, value})
			}
			return nil
		},
	}
}

func getAutoMapping(c *Config) any {
	if c.AutoMapping == nil {
		return nil
	}
	return c.AutoMapping
}

func setAutoMapping(c *Config, v strictjson.Value) error {
	m, ok := v.Any().(map[string]any)
	if c.AutoMapping = m; !ok {
		return strictjson.ErrType
	}
	return nil
}

// ignored is a key that changes nothing about an adapter that a file has; peft writes it with this default.
func ignored(unset any) field {
	return field{
		only: LoRA,
		get:  func(*Config) any { return unset },
		set:  func(*Config, strictjson.Value) error { return nil },
	}
}

// beginning is an ignored key, with a warning, that is not written again.
func beginning(key string, unset any) field {
	f := ignored(unset)
	f.null = true
	f.set = func(c *Config, v strictjson.Value) error {
		if o, err := v.AsObject(); err != nil || o.Len() > 0 {
			c.warn("%s is ignored: it is how new adapters began", key)
			delete(c.raw, key)
		}
		return nil
	}
	return f
}

// refused is a key of a variant that isn't here: anything but null, false and an empty list is an error.
func refused(unset any) field {
	return field{
		only: LoRA, null: true,
		get: func(*Config) any { return unset },
		set: func(_ *Config, v strictjson.Value) error {
			if b, err := v.AsBool(); err == nil && !b {
				return nil
			}
			if items, err := v.AsArray(); err == nil && len(items) == 0 {
				return nil
			}
			return ErrUnsupported
		},
	}
}
