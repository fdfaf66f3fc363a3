package cuda

import "github.com/torchgo/torchgo/torch"

// What a stream and an event are is said in package torch.
type (
	Stream        = torch.Stream
	StreamOptions = torch.StreamOptions
	Event         = torch.Event
	EventOptions  = torch.EventOptions
)

// NewStream makes a stream of a device; see [torch.NewStream].
func NewStream(device torch.Device, opts ...StreamOptions) Stream {
	return torch.NewStream(named("new_stream", device), opts...)
}

// CurrentStream is the stream that operators of a device go to here.
func CurrentStream(device torch.Device) Stream {
	return torch.CurrentStream(named("current_stream", device))
}

// DefaultStream is the stream that is current where none is set.
func DefaultStream(device torch.Device) Stream {
	return torch.DefaultStream(named("default_stream", device))
}

// WithStream runs fn with s as the current stream, and its device as the current device; see
// [torch.WithStream].
func WithStream(s Stream, fn func()) {
	index("stream", s.Device())
	torch.WithStream(s, fn)
}

// NewEvent makes an event. It belongs to the device of the stream that it is first recorded on.
func NewEvent(opts ...EventOptions) *Event {
	return torch.NewEvent(torch.Device{Type: torch.DeviceCUDA}, opts...)
}
