package peft

import "github.com/torchgo/torchgo/torch"

// Type is a kind of adapter: peft_type of adapter_config.json.
type Type string

// The kinds that are here.
const (
	LoRA Type = "LORA"
	IA3  Type = "IA3"
)

// Config is an adapter's config: adapter_config.json (LoraConfig, IA3Config). Zero values are peft's defaults.
type Config struct {
	PeftType            Type           `json:"peft_type"`
	TaskType            string         `json:"task_type"`
	AutoMapping         map[string]any `json:"auto_mapping"`
	PeftVersion         string         `json:"peft_version"`
	BaseModelNameOrPath string         `json:"base_model_name_or_path"`
	Revision            string         `json:"revision"`
	InferenceMode       bool           `json:"inference_mode"` // the adapter isn't trained

	TargetModules  Names    `json:"target_modules"`  // which modules; default: by the model's type
	ExcludeModules Names    `json:"exclude_modules"` // and which of them not
	ModulesToSave  []string `json:"modules_to_save"` // modules that are trained as a whole, in a copy of the adapter's
	FanInFanOut    bool     `json:"fan_in_fan_out"`  // weights are (in, out)

	// LoRA
	R                 torch.Opt[int]     `json:"r"`                 // the rank; default: 8
	LoraAlpha         torch.Opt[float64] `json:"lora_alpha"`        // default: 8
	LoraDropout       float64            `json:"lora_dropout"`      // probability, in training mode
	Bias              Bias               `json:"bias"`              // which of the model's biases are trained; default: BiasNone
	UseRSLoRA         bool               `json:"use_rslora"`        // scale by alpha/√r, not alpha/r
	UseDoRA           bool               `json:"use_dora"`          // train magnitude and direction apart
	LoraBias          bool               `json:"lora_bias"`         // B has a bias
	InitLoraWeights   Init               `json:"init_lora_weights"` // default: InitTrue
	LayersToTransform []int              `json:"layers_to_transform"`
	LayersPattern     []string           `json:"layers_pattern"`
	RankPattern       []Pattern[int]     `json:"rank_pattern"`
	AlphaPattern      []Pattern[float64] `json:"alpha_pattern"`

	// IA³
	FeedforwardModules Names           `json:"feedforward_modules"` // those of the targets whose inputs are scaled
	InitIA3Weights     torch.Opt[bool] `json:"init_ia3_weights"`    // start as ones; default: true
}

// Names choose modules: in Python a string, which is "all-linear" or a regular expression of whole names, or a list
// of names and of ends of names after a dot. The zero value is None.
type Names struct {
	Pattern string
	List    []string
}

// Pattern is a value for the modules whose name a regular expression matches at its end; the first that does counts.
type Pattern[T any] struct {
	Name  string
	Value T
}

// Bias says which biases a LoRA adapter trains.
type Bias string

// The zero value means BiasNone.
const (
	BiasNone     Bias = "none"
	BiasAll      Bias = "all"
	BiasLoraOnly Bias = "lora_only" // those of the layers with adapters
)

// Init is how a new LoRA adapter begins.
type Init string

// The zero value means InitTrue.
const (
	InitTrue     Init = "true"     // A as a linear layer's weight, B zero: the model's output stays
	InitGaussian Init = "gaussian" // A normal with deviation 1/r, B zero
	InitFalse    Init = "false"    // both random, for tests
)
