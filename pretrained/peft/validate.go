package peft

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Limits of what a config may ask for, far above any published adapter.
const (
	maxRank     = 1 << 24
	maxPatterns = 10_000 // of rank_pattern and alpha_pattern, each
)

// kinds are the other kinds of adapters that peft 0.21.2 has.
var kinds = strings.Fields(`ADALORA ADAMSS ADAPTION_PROMPT BEFT BOFT C3A CARTRIDGE CPT DEFT DELORA FOURIERFT FROD GLORA GRALORA HIRA
	HRA LILY LN_TUNING LOHA LOKR MISS MULTITASK_PROMPT_TUNING OFT OSF PEANUT POLY PREFIX_TUNING PROMPT_TUNING PSOFT PVERA P_TUNING
	RANDLORA ROAD SHADOW SHIRA SUPERTUNING TINYLORA TRAINABLE_TOKENS UNILORA VBLORA VERA WAVEFT XLORA`)

// tasks are the values of task_type.
var tasks = []string{"SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"}

func (c *Config) checkType() error {
	if c.PeftType == LoRA || c.PeftType == IA3 {
		return nil
	}
	e := &Error{Class: ErrUnsupported, Detail: "peft_type", Expected: "LORA or IA3", Actual: quoted(string(c.PeftType))}
	if slices.Contains(kinds, string(c.PeftType)) {
		e.Detail = "this kind of adapter is not here: peft_type"
	}
	return e
}

// Validate refuses configs that make no adapter: values out of range, and such that don't go together. What peft
// passes over in silence is added to Warnings.
func (c *Config) Validate() error {
	if err := c.checkType(); err != nil {
		return err
	}
	if c.TaskType != "" && !slices.Contains(tasks, c.TaskType) {
		return configError("task_type", "one of "+strings.Join(tasks, ", "), quoted(c.TaskType))
	}
	if len(c.RankPattern) > maxPatterns || len(c.AlphaPattern) > maxPatterns {
		return configError("rank_pattern, alpha_pattern", fmt.Sprintf("at most %d patterns", maxPatterns), "more")
	}
	unresolved := &Targets{TargetModules: c.TargetModules, FeedforwardModules: c.FeedforwardModules}
	if c.TargetModules.allLinear() {
		unresolved.TargetModules = Names{}
	}
	if _, err := c.matchers(unresolved); err != nil {
		return err
	}
	if c.AutoMapping != nil {
		if name, ok := c.AutoMapping["base_model_class"].(string); ok {
			c.warnOnce("auto_mapping is ignored: the Python class " + quoted(name) + " is not loaded")
		} else {
			c.warnOnce("auto_mapping is ignored")
		}
	}
	if c.PeftType == IA3 {
		for _, name := range c.FeedforwardModules.List {
			if c.TargetModules.List != nil && !slices.Contains(c.TargetModules.List, name) {
				return configError("feedforward_modules", "only names of target_modules", quoted(name))
			}
		}
		return nil
	}
	return c.validateLoRA()
}

func (c *Config) validateLoRA() error {
	if err := checkRank("r", c.R.Or(8)); err != nil {
		return err
	}
	if err := checkAlpha("lora_alpha", c.LoraAlpha.Or(8)); err != nil {
		return err
	}
	if p := c.LoraDropout; !(p >= 0 && p <= 1) {
		return configError("lora_dropout", "a probability", fmt.Sprint(p))
	}
	if !slices.Contains([]Bias{"", BiasNone, BiasAll, BiasLoraOnly}, c.Bias) {
		return configError("bias", "none, all or lora_only", quoted(string(c.Bias)))
	}
	if err := c.checkInit(); err != nil {
		return err
	}
	switch {
	case c.TargetModules.Pattern != "" && c.LayersToTransform != nil:
		return configError("layers_to_transform", "none, since target_modules is a pattern", "some")
	case c.TargetModules.Pattern != "" && c.LayersPattern != nil:
		return configError("layers_pattern", "none, since target_modules is a pattern", "some")
	case len(c.LayersPattern) > 0 && c.LayersToTransform == nil:
		return configError("layers_to_transform", "some, since there is a layers_pattern", "none")
	case c.LoraBias && c.UseDoRA:
		return configError("lora_bias", "false with use_dora", "true")
	}
	for _, p := range c.RankPattern {
		if err := checkRank("rank_pattern of "+quoted(p.Name), p.Value); err != nil {
			return err
		}
	}
	for _, p := range c.AlphaPattern {
		if err := checkAlpha("alpha_pattern of "+quoted(p.Name), p.Value); err != nil {
			return err
		}
	}
	return nil
}

func checkRank(key string, r int) error {
	if r < 1 || r > maxRank {
		return configError(key, fmt.Sprintf("1 to %d", maxRank), fmt.Sprint(r))
	}
	return nil
}

func checkAlpha(key string, a float64) error {
	if math.IsNaN(a) || math.IsInf(a, 0) {
		return configError(key, "a finite number", fmt.Sprint(a))
	}
	return nil
}

// checkInit refuses ways to begin that also change the weights of the base model: what the file has is then a
// difference to weights that are nowhere.
func (c *Config) checkInit() error {
	switch i := strings.ToLower(string(c.InitLoraWeights)); {
	case Init(i).Known(), Init(i) == InitOrthogonal, Init(i) == InitEVA:
		if c.LoraBias && c.InitLoraWeights != "" && c.InitLoraWeights != InitTrue && c.InitLoraWeights != InitFalse {
			return configError("init_lora_weights", "true or false with lora_bias", quoted(string(c.InitLoraWeights)))
		}
		return nil
	case strings.HasPrefix(i, "pissa"), i == "olora", i == "corda", i == "loftq", i == "lora_ga", i == "mica":
		return &Error{
			Class: ErrUnsupported, Detail: "init_lora_weights", Actual: quoted(string(c.InitLoraWeights)),
			Remedy: "such an adapter changes the base model's weights; have peft save it as a plain LoRA (path_initial_model_for_weight_conversion)",
		}
	}
	return configError("init_lora_weights", "true, false, gaussian, orthogonal or eva", quoted(string(c.InitLoraWeights)))
}

func (c *Config) warnOnce(text string) {
	if !slices.Contains(c.Warnings, text) {
		c.Warnings = append(c.Warnings, text)
	}
}

// inDetail puts the key of a config before an Error's detail.
func inDetail(err error, key string) error {
	var e *Error
	if errors.As(err, &e) {
		e.Detail = key + ": " + e.Detail
	}
	return err
}
