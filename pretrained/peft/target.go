package peft

// Target is a module that gets an adapter.
type Target struct {
	Path        string  // "encoder.layer.0.attention.self.query"
	Module      any     // *nn.Linear, *nn.Embedding or one with an nn.Conv inside
	R           int     // LoRA: its rank
	Alpha       float64 // LoRA: its alpha
	Feedforward bool    // IA³: its input is scaled, not its output
}

// Targets are what an adapter's config chooses of a model.
type Targets struct {
	Layers []Target // in the order of nn.NamedModules
	Save   []Target // modules_to_save: Path and Module alone
}

// ModelInfo is what targets depend on beside the modules.
type ModelInfo struct {
	ModelType        string // model_type of its config: for default targets; "" unknown
	OutputEmbeddings string // the path of its output layer, which all-linear leaves out; "" none
}
