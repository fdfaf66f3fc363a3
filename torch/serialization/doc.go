// Package serialization saves and loads values in PyTorch's own format: torch.save and torch.load, of torch.serialization.
//
//	err := serialization.Save(ctx, "checkpoint.pt", map[string]any{
//		"model":     nn.StateDict(model),
//		"optimizer": opt.StateDict(),
//		"epoch":     3,
//	})
//
//	saved, err := serialization.Load(ctx, "checkpoint.pt")
//	if err != nil { … }
//	defer saved.Close()
//	state, err := saved.StateDict("model")
//	err = nn.LoadStateDict(model, state)
//
// In Python that is torch.save and torch.load(path, map_location="cpu", weights_only=True), and each side reads what
// the other has written. A file is data: loading runs no code that is in it.
package serialization
