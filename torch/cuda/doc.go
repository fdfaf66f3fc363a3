// Package cuda is what concerns GPUs alone: their properties, memory, random numbers, graphs. Tensors and
// operators on a GPU are those of package torch, and so are streams and events, which serve the CPU as
// well; here they are under PyTorch's names, for GPUs only.
//
// A device argument is torch.CUDA(n); the zero [torch.Device] is the current device. Where there is no GPU,
// or libtorch runs without CUDA, a function panics with a *[torch.Error] that errors.Is
// [torch.ErrNoDevice]; [IsAvailable] and [DeviceCount] don't, and need nothing.
//
// docs/devices.md shows how one program serves both kinds of machine.
package cuda
