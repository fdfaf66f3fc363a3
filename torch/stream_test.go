package torch

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The code of a program that overlaps work on a GPU runs on the CPU as well.
func TestStreamsOnTheCPU(t *testing.T) {
	Scope(func() {
		side := NewStream(CPU, StreamOptions{Priority: -1})
		require.Equal(t, CurrentStream(CPU), side, "the CPU has one")
		require.Equal(t, DefaultStream(Device{}), side)
		require.Equal(t, CPU, side.Device())
		require.Equal(t, "default stream of cpu", side.String())
		start, end := NewEvent(CPU, EventOptions{Timing: true}), NewEvent(CPU, EventOptions{Timing: true})
		require.True(t, start.Query(), "never recorded")
		var y *Tensor
		WithStream(side, func() {
			start.Record(side)
			time.Sleep(20 * time.Millisecond)
			y = Ones([]int{3}).To(CPU, ToOptions{NonBlocking: true})
			end.Record(side)
		})
		CurrentStream(CPU).Wait(end)
		CurrentStream(CPU).WaitStream(side)
		y.RecordStream(CurrentStream(CPU))
		require.True(t, end.Query())
		end.Synchronize()
		side.Synchronize()
		require.True(t, side.Query())
		Synchronize(CPU)
		WithDevice(CPU, func() { Synchronize(Device{}) })
		require.GreaterOrEqual(t, start.ElapsedTime(end), 20*time.Millisecond)
		require.Equal(t, []float32{1, 1, 1}, ToSlice[float32](y))
	})
}

func TestEventsRefuse(t *testing.T) {
	timed := func() *Event { return NewEvent(CPU, EventOptions{Timing: true}) }
	a, b, plain := timed(), timed(), NewEvent(CPU)
	a.Record(CurrentStream(CPU))
	require.ErrorIs(t, TryDo(func() { a.ElapsedTime(b) }), ErrValue, "never recorded")
	plain.Record(CurrentStream(CPU))
	require.ErrorIs(t, TryDo(func() { a.ElapsedTime(plain) }), ErrValue, "without Timing")
	require.ErrorIs(t, TryDo(func() { a.ElapsedTime(nil) }), ErrArgument)
	require.ErrorIs(t, TryDo(func() { CurrentStream(CPU).Wait(nil) }), ErrArgument)
	require.ErrorIs(t, TryDo(func() { a.Record(Stream{device: CUDA(0)}) }), ErrArgument)
	closed := Ones([]int{1})
	closed.Close()
	require.ErrorIs(t, TryDo(func() { closed.RecordStream(CurrentStream(CPU)) }), ErrClosed)
	require.ErrorIs(t, TryDo(func() { NewStream(Meta) }), ErrArgument)
}

// Without a GPU, what asks for one says so.
func TestNoDevice(t *testing.T) {
	n := CUDADeviceCount()
	missing := CUDA(n)
	for name, fn := range map[string]func(){
		"new_stream":        func() { NewStream(missing) },
		"current_stream":    func() { CurrentStream(missing) },
		"default_stream":    func() { DefaultStream(missing) },
		"synchronize":       func() { Synchronize(missing) },
		"device":            func() { WithDevice(missing, func() { t.Error("ran") }) },
		"stream":            func() { WithStream(Stream{device: missing}, func() { t.Error("ran") }) },
		"default_generator": func() { DefaultGenerator(missing) },
		"generator":         func() { NewGenerator(missing, 1) },
	} {
		err := TryDo(fn)
		require.ErrorIs(t, err, ErrNoDevice, name)
		require.Regexp(t, "^"+name+": "+missing.String()+" was asked for, but ", err.Error())
	}
	if n == 0 {
		require.ErrorIs(t, TryDo(func() { NewEvent(missing) }), ErrNoDevice)
	}
}
