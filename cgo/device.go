//go:build cgo

package cgo

/*
#include "loader.h"
*/
import "C"

import "unsafe"

// DeviceCurrent is the index of the calling thread's current device of a c10::DeviceType.
func DeviceCurrent(device int) (int, error) {
	var out C.int32_t
	var e C.tg_error
	err := check(C.tg_device_current(C.int32_t(device), &out, &e), &e)
	return int(out), err
}

// DeviceEnter makes a device the calling thread's current one; see [GuardLeave].
func DeviceEnter(device, index int) (Guard, error) {
	var out C.tg_guard
	var e C.tg_error
	err := check(C.tg_device_enter(C.int32_t(device), C.int32_t(index), &out, &e), &e)
	return Guard(out), err
}

// DeviceSynchronize waits for all work of a device.
func DeviceSynchronize(device, index int) error {
	var e C.tg_error
	return check(C.tg_device_synchronize(C.int32_t(device), C.int32_t(index), &e), &e)
}

// DeviceProperties is a device's name and its words Prop….
func DeviceProperties(device, index int) (string, [PropWords]int, error) {
	var name *C.char
	var out [PropWords]int
	var e C.tg_error
	kind := C.tg_device_properties(C.int32_t(device), C.int32_t(index), sizes(out[:]), PropWords, &name, &e)
	if err := check(kind, &e); err != nil {
		return "", out, err
	}
	return takeString(C.uintptr_t(uintptr(unsafe.Pointer(name)))), out, nil
}

// StreamGet gives the current, the default or a new stream of a device.
func StreamGet(device, index, which, priority int) (Stream, error) {
	var out [2]int
	var e C.tg_error
	err := check(C.tg_stream_get(C.int32_t(device), C.int32_t(index), C.int32_t(which), C.int32_t(priority), sizes(out[:]), 2, &e), &e)
	return Stream{device, out[0], out[1]}, err
}

// StreamEnter makes a stream, and its device, the calling thread's current one; see [GuardLeave].
func StreamEnter(s Stream) (Guard, error) {
	var out C.tg_guard
	var e C.tg_error
	err := check(C.tg_stream_enter(C.int32_t(s.Device), C.int32_t(s.Index), C.int64_t(s.ID), &out, &e), &e)
	return Guard(out), err
}

// StreamQuery tells whether all work of a stream is done.
func StreamQuery(s Stream) (bool, error) {
	var out C.int32_t
	var e C.tg_error
	err := check(C.tg_stream_query(C.int32_t(s.Device), C.int32_t(s.Index), C.int64_t(s.ID), &out, &e), &e)
	return out != 0, err
}

// StreamSynchronize waits for the work of a stream.
func StreamSynchronize(s Stream) error {
	var e C.tg_error
	return check(C.tg_stream_synchronize(C.int32_t(s.Device), C.int32_t(s.Index), C.int64_t(s.ID), &e), &e)
}

// EventNew makes an event for devices of a c10::DeviceType.
func EventNew(device int, timing bool) (Event, error) {
	var out C.tg_event
	var e C.tg_error
	err := check(C.tg_event_new(C.int32_t(device), flag(timing), &out, &e), &e)
	return Event(out), err
}

// EventFree gives an event up.
func EventFree(event Event) error {
	var e C.tg_error
	return check(C.tg_event_free(C.tg_event(event), &e), &e)
}

// EventRecord marks the place that a stream has come to.
func EventRecord(event Event, s Stream) error {
	var e C.tg_error
	return check(C.tg_event_record(C.tg_event(event), C.int32_t(s.Device), C.int32_t(s.Index), C.int64_t(s.ID), &e), &e)
}

// EventBlock makes a stream wait for an event.
func EventBlock(event Event, s Stream) error {
	var e C.tg_error
	return check(C.tg_event_block(C.tg_event(event), C.int32_t(s.Device), C.int32_t(s.Index), C.int64_t(s.ID), &e), &e)
}

// EventQuery tells whether an event is reached.
func EventQuery(event Event) (bool, error) {
	var out C.int32_t
	var e C.tg_error
	err := check(C.tg_event_query(C.tg_event(event), &out, &e), &e)
	return out != 0, err
}

// EventSynchronize waits for an event.
func EventSynchronize(event Event) error {
	var e C.tg_error
	return check(C.tg_event_synchronize(C.tg_event(event), &e), &e)
}

// EventElapsed is the time between two events in milliseconds.
func EventElapsed(from, to Event) (float64, error) {
	var out C.double
	var e C.tg_error
	err := check(C.tg_event_elapsed(C.tg_event(from), C.tg_event(to), &out, &e), &e)
	return float64(out), err
}

// RecordStream tells the allocator that a stream uses t.
func RecordStream(t Tensor, s Stream) error {
	var e C.tg_error
	return check(C.tg_record_stream(C.tg_tensor(t), C.int32_t(s.Device), C.int32_t(s.Index), C.int64_t(s.ID), &e), &e)
}

// MemoryStats are the words of a device's memory statistics.
func MemoryStats(device, index int) ([MemoryWords]int, error) {
	var out [MemoryWords]int
	var e C.tg_error
	err := check(C.tg_memory_stats(C.int32_t(device), C.int32_t(index), sizes(out[:]), MemoryWords, &e), &e)
	return out, err
}

// MemoryReset sets the peaks of a device's statistics to their current values, or what has accumulated to 0.
func MemoryReset(device, index int, accumulated bool) error {
	var e C.tg_error
	return check(C.tg_memory_reset(C.int32_t(device), C.int32_t(index), flag(accumulated), &e), &e)
}

// MemoryInfo is the free and the total memory of a device in bytes.
func MemoryInfo(device, index int) (free, total int, err error) {
	var out [2]int
	var e C.tg_error
	err = check(C.tg_memory_info(C.int32_t(device), C.int32_t(index), sizes(out[:]), 2, &e), &e)
	return out[0], out[1], err
}

// MemoryFraction bounds what the process takes of a device's memory.
func MemoryFraction(device, index int, fraction float64) error {
	var e C.tg_error
	return check(C.tg_memory_fraction(C.int32_t(device), C.int32_t(index), C.double(fraction), &e), &e)
}

// GeneratorDefault is a reference to a device's default generator.
func GeneratorDefault(device, index int) (Generator, error) {
	var out C.tg_generator
	var e C.tg_error
	err := check(C.tg_generator_default(C.int32_t(device), C.int32_t(index), &out, &e), &e)
	return Generator(out), err
}

// GeneratorSeed seeds a generator.
func GeneratorSeed(g Generator, seed uint64) error {
	var e C.tg_error
	return check(C.tg_generator_seed(C.tg_generator(g), C.uint64_t(seed), &e), &e)
}

// GraphNew makes an empty graph for devices of a c10::DeviceType.
func GraphNew(device int) (Graph, error) {
	var out C.tg_graph
	var e C.tg_error
	err := check(C.tg_graph_new(C.int32_t(device), &out, &e), &e)
	return Graph(out), err
}

// GraphFree gives a graph up.
func GraphFree(g Graph) error {
	var e C.tg_error
	return check(C.tg_graph_free(C.tg_graph(g), &e), &e)
}

// GraphBegin captures what is queued on the current stream; a pool of zeros is one of its own.
func GraphBegin(g Graph, pool [2]uint64, mode int) error {
	var e C.tg_error
	return check(C.tg_graph_begin(C.tg_graph(g), C.uint64_t(pool[0]), C.uint64_t(pool[1]), C.int32_t(mode), &e), &e)
}

// GraphEnd ends the capture.
func GraphEnd(g Graph) error {
	var e C.tg_error
	return check(C.tg_graph_end(C.tg_graph(g), &e), &e)
}

// GraphReplay queues the graph's work on the current stream.
func GraphReplay(g Graph) error {
	var e C.tg_error
	return check(C.tg_graph_replay(C.tg_graph(g), &e), &e)
}

// GraphReset empties a graph.
func GraphReset(g Graph) error {
	var e C.tg_error
	return check(C.tg_graph_reset(C.tg_graph(g), &e), &e)
}

// GraphPool is a graph's pool of memory; a new pool for the graph 0.
func GraphPool(g Graph) ([2]uint64, error) {
	var out [2]int
	var e C.tg_error
	err := check(C.tg_graph_pool(C.tg_graph(g), sizes(out[:]), 2, &e), &e)
	return [2]uint64{uint64(out[0]), uint64(out[1])}, err
}

// AutocastEnter sets autocast in the calling thread; see [GuardLeave]. dtype -1 is the device's own, cache -1 leaves that as it is.
func AutocastEnter(device int, on bool, dtype, cache int) (Guard, error) {
	var out C.tg_guard
	var e C.tg_error
	err := check(C.tg_autocast_enter(C.int32_t(device), flag(on), C.int32_t(dtype), C.int32_t(cache), &out, &e), &e)
	return Guard(out), err
}

// Autocast tells whether autocast is on in the calling thread, its dtype, and whether it keeps the casts of weights.
func Autocast(device int) (on bool, dtype int, cache bool, err error) {
	var out [3]int
	var e C.tg_error
	err = check(C.tg_autocast_state(C.int32_t(device), sizes(out[:]), 3, &e), &e)
	return out[0] != 0, out[1], out[2] != 0, err
}

// ModesCapture copies the modes of the calling thread; 0 where they are the default ones.
func ModesCapture() (Modes, error) {
	var out C.tg_state
	var e C.tg_error
	err := check(C.tg_state_capture(&out, &e), &e)
	return Modes(out), err
}

// ModesEnter sets modes in the calling thread; see [GuardLeave].
func ModesEnter(s Modes) (Guard, error) {
	var out C.tg_guard
	var e C.tg_error
	err := check(C.tg_state_enter(C.tg_state(s), &out, &e), &e)
	return Guard(out), err
}

// ModesFree gives modes up.
func ModesFree(s Modes) error {
	var e C.tg_error
	return check(C.tg_state_free(C.tg_state(s), &e), &e)
}

// FlagGet reads a flag of the process.
func FlagGet(which int) (int, error) {
	var out C.int64_t
	var e C.tg_error
	err := check(C.tg_flag_get(C.int32_t(which), &out, &e), &e)
	return int(out), err
}

// FlagSet sets a flag of the process.
func FlagSet(which, value int) error {
	var e C.tg_error
	return check(C.tg_flag_set(C.int32_t(which), C.int64_t(value), &e), &e)
}
