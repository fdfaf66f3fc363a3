// Package nn holds neural-network modules on package torch.
//
// A module is a pointer to a Go struct. A field's torch tag is its name in the checkpoint, so the state
// dict is read off the struct and the names are those of the files:
//
//	type MLP struct {
//		Up   *nn.Linear   `torch:"up_proj"`   // (inner, hidden)
//		Down *nn.Linear   `torch:"down_proj"` // (hidden, inner)
//		Drop *nn.Dropout  `torch:"dropout"`
//	}
//
// What a tagged field may be:
//
//	*torch.Tensor                        a parameter; nil is an absent one (a layer without bias)
//	*torch.Tensor `torch:"n,late"`       a parameter that comes after the module's others
//	*torch.Tensor `torch:"n,buffer"`     a buffer: saved, not trained
//	*torch.Tensor `torch:"n,transient"`  a buffer that is not saved (PyTorch's persistent=False)
//	pointer to a struct, or an interface a child module; nil is an absent one
//	slice of those                       children n.0, n.1, …
//	any module `torch:",inline"`         its entries appear as the holder's own, as those of embedded structs do
//	slice of modules `torch:",inline"`   children 0, 1, … of the holder itself
//
// Fields without a tag are not part of the module. Where one tensor is held by two fields, the two are
// tied: they are one parameter with two names.
//
// # Layers
//
// Layers have the names of torch.nn, the names of its state dicts, and its initial values for the same seed: NewLinear,
// NewConv2d, NewLSTM and so on make float32 ones on the CPU, the methods of a Builder others, on the meta device or
// without initial values, too. Required arguments are positional; the others are a struct whose zero value gives
// PyTorch's defaults. What has no tensors (activations, padding, most pooling) is a *Func. Losses are structs whose
// fields are their options. Wrong arguments panic with a *torch.Error.
//
// A new module is in training mode; Train and Eval change that for a tree of modules. A module of one's own embeds
// Mode to be told, and Hooks to take hooks.
//
// A forward pass of a layer in evaluation mode only reads it, so many goroutines may share one. In training mode batch
// norm, and spectral norm, write their buffers.
//
// Letters in shape comments: B batch, T sequence, H heads, D size of a head, C channels (hidden size),
// V vocabulary.
//
// Parameters belong to the module, never to the scope they were made in.
package nn
