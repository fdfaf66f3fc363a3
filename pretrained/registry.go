package pretrained

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/torchgo/torchgo/torch/nn"
)

// Architecture is a model type with the classes it comes in. Packages below pretrained/models register
// theirs in init.
type Architecture struct {
	ModelType string        // model_type of config.json
	Prefix    string        // base_model_prefix: the field under which the heads hold the base model
	NewConfig func() Config // with transformers' defaults
	Classes   []Class       // the base model first

	InputEmbeddings  string   // path of the input embeddings below the base model: "embed_tokens"
	NoSplit          []any    // a nil pointer of each type of module that stays on one device, and runs through Block: (*Layer)(nil)
	Layers           []any    // those of the repeated blocks that activation checkpointing runs again; none: it can't be had
	KeepInFP32       []string // regular expressions of keys that stay float32 in a float16 model
	KeepInFP32Strict []string // and those that do in a bfloat16 model, too

	keepInFP32, keepInFP32Strict []*regexp.Regexp

	Renamings  []KeyRule   // from names in files to the model's, applied in turn after the caller's
	Converters []Converter // for tensors that are merged or divided; one at most for a name, after the renamings

	GGUF *GGUF // what GGUF files have in place of config.json and these names; nil: there are none of the model type
}

// Class is a model class: the base model, or it with a head.
type Class struct {
	Name string       // transformers' name: "BertForMaskedLM"
	Auto []*AutoClass // the Auto classes that choose it
	New  func(nn.Builder, Config) Model

	Prefix           string            // the field that holds the base model, where it isn't the architecture's Prefix
	Ties             map[string]string // target: source; in force where config's tie_word_embeddings is true
	IgnoreMissing    []string          // regular expressions of keys that may be missing
	IgnoreUnexpected []string          // regular expressions of keys of the file that have no use
	IgnoreOnSave     []string          // keys that are not written
	OutputEmbeddings string            // path of the output embeddings in the class: "lm_head"
	NoSDPA           bool              // eager attention only
	Generates        bool              // text is generated with it

	Renamings  []KeyRule   // of this class, with Converters in place of the architecture's
	Converters []Converter // likewise

	ignoreMissing, ignoreUnexpected []*regexp.Regexp
}

// prefix is the field under which the class holds the base model.
func (c *Class) prefix(a *Architecture) string {
	if c.Prefix != "" {
		return c.Prefix
	}
	return a.Prefix
}

// Build adapts the constructor of a model to Class.New.
func Build[C Config, M Model](construct func(nn.Builder, C) M) func(nn.Builder, Config) Model {
	return func(b nn.Builder, c Config) Model { return construct(b, c.(C)) }
}

var registry struct {
	sync.RWMutex
	architectures map[string]*Architecture // by model type
	classes       map[string]*Architecture // by class name
}

// Register adds an architecture. It panics when one of its names is taken.
func Register(a Architecture) {
	registry.Lock()
	defer registry.Unlock()
	if registry.architectures == nil {
		registry.architectures = map[string]*Architecture{}
		registry.classes = map[string]*Architecture{}
	}
	if err := checkRules(a.Renamings, a.Converters); err != nil {
		panic("pretrained: model type " + a.ModelType + ": " + err.Error())
	}
	if a.GGUF != nil {
		if err := a.GGUF.compile(); err != nil {
			panic("pretrained: GGUF files of model type " + a.ModelType + ": " + err.Error())
		}
	}
	if registry.architectures[a.ModelType] != nil {
		panic("pretrained: model type " + a.ModelType + " registered twice")
	}
	registry.architectures[a.ModelType] = &a
	a.keepInFP32, a.keepInFP32Strict = compileAll(a.KeepInFP32), compileAll(a.KeepInFP32Strict)
	for i := range a.Classes {
		c := &a.Classes[i]
		if registry.classes[c.Name] != nil {
			panic("pretrained: class " + c.Name + " registered twice")
		}
		if err := checkRules(c.Renamings, c.Converters); err != nil {
			panic("pretrained: class " + c.Name + ": " + err.Error())
		}
		registry.classes[c.Name] = &a
		c.ignoreMissing, c.ignoreUnexpected = compileAll(c.IgnoreMissing), compileAll(c.IgnoreUnexpected)
		for _, auto := range c.Auto {
			auto.classes[a.ModelType] = c.Name
		}
	}
}

func compileAll(patterns []string) (compiled []*regexp.Regexp) {
	for _, p := range patterns {
		compiled = append(compiled, regexp.MustCompile(p))
	}
	return compiled
}

// AutoClass chooses the class of a checkpoint by its model_type.
type AutoClass struct {
	Name    string
	classes map[string]string // by model type
}

// The Auto classes.
var (
	AutoModel                          = newAuto("AutoModel")
	AutoModelForPreTraining            = newAuto("AutoModelForPreTraining")
	AutoModelForTextEncoding           = newAuto("AutoModelForTextEncoding")
	AutoModelForCausalLM               = newAuto("AutoModelForCausalLM")
	AutoModelForMaskedLM               = newAuto("AutoModelForMaskedLM")
	AutoModelForSequenceClassification = newAuto("AutoModelForSequenceClassification")
	AutoModelForTokenClassification    = newAuto("AutoModelForTokenClassification")
	AutoModelForQuestionAnswering      = newAuto("AutoModelForQuestionAnswering")
	AutoModelForNextSentencePrediction = newAuto("AutoModelForNextSentencePrediction")
	AutoModelForMultipleChoice         = newAuto("AutoModelForMultipleChoice")
)

// Register has a choose a registered class for checkpoints of its model type, in place of what it chose before
// (AutoModel.register). Register of the package adds types with their classes.
func (a *AutoClass) Register(class string) error {
	registry.Lock()
	defer registry.Unlock()
	arch := registry.classes[class]
	if arch == nil {
		return &Error{Detail: "class", Class: ErrUnsupported, Actual: fmt.Sprintf("%q", shorten(class)), Expected: "a registered one"}
	}
	a.classes[arch.ModelType] = class
	return nil
}

// ModelTypes are those that a has a class for, sorted.
func (a *AutoClass) ModelTypes() []string {
	registry.RLock()
	defer registry.RUnlock()
	return slices.Sorted(maps.Keys(a.classes))
}

// NewAutoClass adds an Auto class under a name of its own, with no classes yet. It panics when the name is taken.
func NewAutoClass(name string) *AutoClass {
	registry.Lock()
	defer registry.Unlock()
	if autoClasses[name] != nil || registry.classes[name] != nil {
		panic("pretrained: class " + name + " exists")
	}
	return newAuto(name)
}

var autoClasses map[string]*AutoClass

func newAuto(name string) *AutoClass {
	if autoClasses == nil {
		autoClasses = map[string]*AutoClass{}
	}
	a := &AutoClass{Name: name, classes: map[string]string{}}
	autoClasses[name] = a
	return a
}

// architecture is that of a config's model type, or nil.
func architecture(c Config) *Architecture {
	registry.RLock()
	defer registry.RUnlock()
	return registry.architectures[c.Base().ModelType]
}

func (a *Architecture) class(name string) *Class {
	for i := range a.Classes {
		if a.Classes[i].Name == name {
			return &a.Classes[i]
		}
	}
	return nil
}

// choose finds architecture and class for a config.json: by name if one is asked for, else by the config.
func choose(name string, raw map[string]any) (*Architecture, *Class, error) {
	registry.RLock()
	defer registry.RUnlock()
	if len(registry.architectures) == 0 {
		return nil, nil, &Error{Class: ErrUnsupported, Detail: "no architecture is registered",
			Remedy: `import _ "github.com/torchgo/torchgo/pretrained/models"`}
	}
	modelType, _ := raw["model_type"].(string)
	if name != "" {
		if auto := autoClasses[name]; auto != nil {
			return chooseAuto(auto, modelType, raw)
		}
		if a := registry.classes[name]; a != nil {
			return a, a.class(name), nil
		}
		return nil, nil, &Error{Detail: "class", Class: ErrUnsupported, Actual: fmt.Sprintf("%q", shorten(name)),
			Expected: "an Auto class or one of " + strings.Join(slices.Sorted(maps.Keys(registry.classes)), ", ")}
	}
	var listed []string
	if list, ok := raw["architectures"].([]any); ok {
		for _, item := range list {
			s, _ := item.(string)
			listed = append(listed, s)
			if a := registry.classes[s]; a != nil {
				return a, a.class(s), nil
			}
		}
	}
	if a := registry.architectures[modelType]; a != nil && len(listed) > 0 {
		return nil, nil, &Error{Detail: "architectures", Class: ErrUnsupported, Actual: fmt.Sprintf("%q", shorten(listed[0])),
			Remedy: "ask for another class of model type " + modelType}
	}
	return chooseAuto(AutoModel, modelType, raw)
}

// architectureOf finds that of a model type; raw and auto tell more about one that is not known.
func architectureOf(modelType string, raw map[string]any, auto string) (*Architecture, error) {
	if a := registry.architectures[modelType]; a != nil {
		return a, nil
	}
	if entry := autoMapEntry(raw, auto); entry != "" {
		return nil, &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("auto_map: model type %q is Python code of the checkpoint (%s), which torchgo never runs", shorten(modelType), entry)}
	}
	if modelType == "" {
		return nil, &Error{Detail: "model_type", Class: ErrBadConfig, Expected: "a string", Actual: Describe(raw["model_type"])}
	}
	class := ErrUnsupported
	if strings.Trim(modelType, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		class = ErrBadConfig
	}
	return nil, &Error{Detail: "model_type", Class: class, Actual: fmt.Sprintf("%q", shorten(modelType)),
		Expected: "one of " + strings.Join(slices.Sorted(maps.Keys(registry.architectures)), ", ")}
}

func chooseAuto(auto *AutoClass, modelType string, raw map[string]any) (*Architecture, *Class, error) {
	a, err := architectureOf(modelType, raw, auto.Name)
	if err != nil {
		return nil, nil, err
	}
	name, ok := auto.classes[modelType]
	if !ok {
		return nil, nil, &Error{Detail: auto.Name + ": model_type", Class: ErrUnsupported, Actual: modelType,
			Expected: "one of " + strings.Join(slices.Sorted(maps.Keys(auto.classes)), ", ")}
	}
	return a, a.class(name), nil
}

// autoMapEntry is the entry of a config's auto_map for an Auto class, or its first.
func autoMapEntry(raw map[string]any, auto string) string {
	m, _ := raw["auto_map"].(map[string]any)
	for _, key := range append([]string{auto}, slices.Sorted(maps.Keys(m))...) {
		if v, ok := m[key]; ok {
			return shorten(fmt.Sprintf("%s: %v", key, v))
		}
	}
	return ""
}
