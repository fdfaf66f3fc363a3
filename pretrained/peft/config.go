package peft

import "github.com/torchgo/torchgo/torch"

// PeftVersion is the version of peft whose formats are written; adapter_config.json records it.
const PeftVersion = "0.21.2"

// Type is a kind of adapter: peft_type of adapter_config.json.
type Type string

// The kinds that are here.
const (
	LoRA Type = "LORA"
	IA3  Type = "IA3"
)

// Config is an adapter's config: adapter_config.json (LoraConfig, IA3Config). Zero values are peft's defaults, but
// PeftType must be set. ReadConfig reads one, JSON writes it.
type Config struct {
	PeftType            Type
	TaskType            string         // SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM, TOKEN_CLS, QUESTION_ANS, FEATURE_EXTRACTION or none
	AutoMapping         map[string]any // the Python class of the base model; never used
	PeftVersion         string         // that wrote it; default: PeftVersion
	BaseModelNameOrPath string
	Revision            string
	InferenceMode       bool // the adapter isn't trained

	TargetModules  Names    // which modules; default: by the model's type
	ExcludeModules Names    // and which of them not
	ModulesToSave  []string // ends of names of modules that are trained as a whole, in a copy of the adapter's
	FanInFanOut    bool     // weights are (in, out)

	// LoRA
	R                 torch.Opt[int]     // the rank; default: 8
	LoraAlpha         torch.Opt[float64] // default: 8
	LoraDropout       float64            // probability, in training mode
	Bias              Bias               // which of the model's biases are trained; default: BiasNone
	UseRSLoRA         bool               // scale by alpha/√r, not alpha/r
	UseDoRA           bool               // train magnitude and direction apart
	LoraBias          bool               // B has a bias
	InitLoraWeights   Init               // default: InitTrue
	LayersToTransform []int              // which of numbered layers; empty: all
	LayersPattern     []string           // names before that number; empty: any
	RankPattern       []Pattern[int]     // ranks of some modules
	AlphaPattern      []Pattern[float64]

	// IA³
	FeedforwardModules Names           // those of the targets whose inputs are scaled; default: by the model's type
	InitIA3Weights     torch.Opt[bool] // start as ones; default: true

	Warnings []string // what is odd about the file that it was read from

	raw, asRead map[string]any // the file, and the fields as they were after reading it
}

// Names choose modules: in Python a string, which is "all-linear" or a regular expression of whole names, or a list
// of names and of ends of names after a dot. The zero value is None; an empty List that isn't nil chooses nothing.
type Names struct {
	Pattern string
	List    []string
}

// None reports whether nothing was said.
func (n Names) None() bool { return n.Pattern == "" && n.List == nil }

// Pattern is a value for the modules whose name a regular expression matches at its end, after a dot or from the
// beginning; the first that does counts.
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
	InitTrue       Init = "true"       // A as a linear layer's weight, B zero: the model's output stays
	InitGaussian   Init = "gaussian"   // A normal with deviation 1/r, B zero
	InitFalse      Init = "false"      // both random, for tests
	InitOrthogonal Init = "orthogonal" // as Python's peft began; read from files, not made here
	InitEVA        Init = "eva"        // the same
)

// Known reports whether a new adapter can begin so. Those that only files name have begun already.
func (i Init) Known() bool {
	return i == "" || i == InitTrue || i == InitGaussian || i == InitFalse
}
