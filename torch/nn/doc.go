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
// Letters in shape comments: B batch, T sequence, H heads, D size of a head, C channels (hidden size),
// V vocabulary.
//
// Parameters belong to the module, never to the scope they were made in.
package nn
