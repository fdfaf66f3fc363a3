//go:build !cgo

package cgo

// DeviceCurrent is there with cgo only.
func DeviceCurrent(device int) (int, error) { return 0, errNoCgo }

// DeviceEnter is there with cgo only.
func DeviceEnter(device, index int) (Guard, error) { return 0, errNoCgo }

// DeviceSynchronize is there with cgo only.
func DeviceSynchronize(device, index int) error { return errNoCgo }

// DeviceProperties is there with cgo only.
func DeviceProperties(device, index int) (string, [PropWords]int, error) {
	return "", [PropWords]int{}, errNoCgo
}

// StreamGet is there with cgo only.
func StreamGet(device, index, which, priority int) (Stream, error) { return Stream{}, errNoCgo }

// StreamEnter is there with cgo only.
func StreamEnter(s Stream) (Guard, error) { return 0, errNoCgo }

// StreamQuery is there with cgo only.
func StreamQuery(s Stream) (bool, error) { return false, errNoCgo }

// StreamSynchronize is there with cgo only.
func StreamSynchronize(s Stream) error { return errNoCgo }

// EventNew is there with cgo only.
func EventNew(device int, timing bool) (Event, error) { return 0, errNoCgo }

// EventFree is there with cgo only.
func EventFree(event Event) error { return errNoCgo }

// EventRecord is there with cgo only.
func EventRecord(event Event, s Stream) error { return errNoCgo }

// EventBlock is there with cgo only.
func EventBlock(event Event, s Stream) error { return errNoCgo }

// EventQuery is there with cgo only.
func EventQuery(event Event) (bool, error) { return false, errNoCgo }

// EventSynchronize is there with cgo only.
func EventSynchronize(event Event) error { return errNoCgo }

// EventElapsed is there with cgo only.
func EventElapsed(from, to Event) (float64, error) { return 0, errNoCgo }

// RecordStream is there with cgo only.
func RecordStream(t Tensor, s Stream) error { return errNoCgo }

// MemoryStats is there with cgo only.
func MemoryStats(device, index int) ([MemoryWords]int, error) { return [MemoryWords]int{}, errNoCgo }

// MemoryReset is there with cgo only.
func MemoryReset(device, index int, accumulated bool) error { return errNoCgo }

// MemoryInfo is there with cgo only.
func MemoryInfo(device, index int) (free, total int, err error) { return 0, 0, errNoCgo }

// MemoryFraction is there with cgo only.
func MemoryFraction(device, index int, fraction float64) error { return errNoCgo }

// GeneratorDefault is there with cgo only.
func GeneratorDefault(device, index int) (Generator, error) { return 0, errNoCgo }

// GeneratorSeed is there with cgo only.
func GeneratorSeed(g Generator, seed uint64) error { return errNoCgo }

// GraphNew is there with cgo only.
func GraphNew(device int) (Graph, error) { return 0, errNoCgo }

// GraphFree is there with cgo only.
func GraphFree(g Graph) error { return errNoCgo }

// GraphBegin is there with cgo only.
func GraphBegin(g Graph, pool [2]uint64, mode int) error { return errNoCgo }

// GraphEnd is there with cgo only.
func GraphEnd(g Graph) error { return errNoCgo }

// GraphReplay is there with cgo only.
func GraphReplay(g Graph) error { return errNoCgo }

// GraphReset is there with cgo only.
func GraphReset(g Graph) error { return errNoCgo }

// GraphPool is there with cgo only.
func GraphPool(g Graph) ([2]uint64, error) { return [2]uint64{}, errNoCgo }

// AutocastEnter is there with cgo only.
func AutocastEnter(device int, on bool, dtype, cache int) (Guard, error) { return 0, errNoCgo }

// Autocast is there with cgo only.
func Autocast(device int) (on bool, dtype int, cache bool, err error) {
	return false, 0, false, errNoCgo
}

// ModesCapture is there with cgo only.
func ModesCapture() (Modes, error) { return 0, errNoCgo }

// ModesEnter is there with cgo only.
func ModesEnter(s Modes) (Guard, error) { return 0, errNoCgo }

// ModesFree is there with cgo only.
func ModesFree(s Modes) error { return errNoCgo }

// FlagGet is there with cgo only.
func FlagGet(which int) (int, error) { return 0, errNoCgo }

// FlagSet is there with cgo only.
func FlagSet(which, value int) error { return errNoCgo }
