// Package pretrained loads and saves checkpoints with the semantics of transformers' from_pretrained and
// save_pretrained.
//
//	import _ "github.com/torchgo/torchgo/pretrained/models" // all architectures
//
//	model, err := pretrained.AutoModelForMaskedLM.FromPretrained(ctx, "path/to/model", pretrained.Options{})
//
// A load is a pipeline of values, each of which can be printed and tested on its own:
//
//	resolve files → read headers → build on the meta device → map names → plan → stream weights →
//	initialise what is missing → tie → check → report
//
// The rules of a model type are data: its Architecture has the renamings and converters of its checkpoints, its
// ties, the weights that stay in float32. Saving follows them backwards, so that a model is saved in the form that it
// was found in. What transformers does silently and is not safe is an error here, which names the option that
// allows it.
//
// In place of a directory there may be an id of the Hugging Face hub ("org/name"): package hub brings what is
// needed to the cache that Python has, all of it from one commit.
//
// Plan stops before a byte of weights is read; Load also returns the Report. What differs from
// transformers on purpose is listed in docs/compat.md.
//
// Weights of the model's own dtype on the CPU are views of the mapped file (see Options.DisableMmap): the
// mapping is private, so training in place never writes to the file, but a file that another program
// truncates afterwards ends the process with SIGBUS.
package pretrained
