package torch

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// childText runs the test again in a process of its own, which calls fn and whose output is returned;
// wrap may put another command before it. In the child it does not return.
func childText(t *testing.T, wrap []string, env []string, fn func()) string {
	t.Helper()
	const mark = "child says: "
	if os.Getenv("TORCHGO_TEXT_CHILD") == t.Name() {
		fn()
		os.Exit(0)
	}
	command := append(append([]string{}, wrap...), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$")
	child := exec.Command(command[0], command[1:]...)
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); name != "OMP_NUM_THREADS" && name != "GOMAXPROCS" {
			child.Env = append(child.Env, v)
		}
	}
	child.Env = append(append(child.Env, "TORCHGO_TEXT_CHILD="+t.Name()), env...)
	out, err := child.CombinedOutput()
	require.NoError(t, err, string(out))
	var text []string
	for line := range strings.Lines(string(out)) {
		if said, ok := strings.CutPrefix(line, mark); ok {
			text = append(text, strings.TrimSpace(said))
		}
	}
	return strings.Join(text, "\n")
}

func say(a ...any) { fmt.Println(append([]any{"child says:"}, a...)...) }

// libtorch uses as many threads as the process may, which Go knows (cores by affinity, CPU time by
// cgroup) and OpenMP does not, or what the user says.
func TestThreadsFollowTheProcess(t *testing.T) {
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		t.Skip("no taskset on this machine")
	}
	one := []string{taskset, "-c", "0"}
	for _, c := range []struct {
		name      string
		wrap, env []string
		want      int
	}{
		{"default", nil, nil, runtime.NumCPU()},
		{"one core", one, nil, 1},
		{"GOMAXPROCS", nil, []string{"GOMAXPROCS=3"}, 3},
		{"OMP_NUM_THREADS", nil, []string{"OMP_NUM_THREADS=1"}, 1},
		{"OMP_NUM_THREADS before GOMAXPROCS", nil, []string{"OMP_NUM_THREADS=1", "GOMAXPROCS=3"}, 1},
		{"OMP_NUM_THREADS before the cores", one, []string{"OMP_NUM_THREADS=2"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := childText(t, c.wrap, c.env, func() {
				info, err := RuntimeInfo()
				if err != nil || info.Concurrency != max(2, runtime.GOMAXPROCS(0)) {
					say(err, info)
				}
				x := Ones([]int{300, 300})
				x.MatMul(x)
				say(info.Threads, NumThreads())
			})
			require.Equal(t, fmt.Sprintf("%d %[1]d", c.want), got)
		})
	}
}

// action is the kernel's struct sigaction.
type action struct {
	handler  uintptr
	flags    uint64
	restorer uintptr
	mask     uint64
}

// actions is what this process does on each signal. (The mask of caught signals in /proc would not do:
// Go's runtime catches nearly all of them, so another handler would not show.)
func actions(t *testing.T) (all [65]action) {
	for signal := 1; signal < len(all); signal++ {
		_, _, e := syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(signal), 0, uintptr(unsafe.Pointer(&all[signal])), 8, 0, 0)
		require.Zero(t, e, "signal %d", signal)
	}
	return all
}

// libtorch and the shim leave signals, their mask and the size of core dumps alone: a library has no
// say in them.
func TestNoSignalHandlers(t *testing.T) {
	if !inChild(t) {
		return
	}
	runtime.LockOSThread()
	field := func(name string) string {
		data, err := os.ReadFile("/proc/thread-self/status")
		require.NoError(t, err)
		_, rest, _ := strings.Cut(string(data), name+":")
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(line)
	}
	limit := func() (l syscall.Rlimit) {
		require.NoError(t, syscall.Getrlimit(syscall.RLIMIT_CORE, &l))
		return l
	}
	blocked, dumps := field("SigBlk"), limit()
	before := actions(t)
	require.NoError(t, Load())
	require.Equal(t, before, actions(t), "opening libtorch changed how signals are handled")
	Scope(func() {
		x := Randn([]int{256, 256}).SetRequiresGrad(true)
		x.MatMul(x).Sum().Backward()
		_ = TryDo(func() { x.MatMul(Ones([]int{3})) })
		_ = TryDo(func() { Empty([]int{1 << 50}) })
	})
	require.Equal(t, before, actions(t), "using libtorch changed how signals are handled")
	require.Equal(t, blocked, field("SigBlk"))
	require.Equal(t, dumps, limit())
	signal.Ignore(syscall.SIGHUP)
	require.NotEqual(t, before, actions(t), "the comparison sees a change")
}

// A program that is started inherits none of libtorch's or the shim's descriptors.
func TestChildrenInheritNoDescriptors(t *testing.T) {
	if !inChild(t) {
		return
	}
	inherited := func() (files []string) {
		out, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
		require.NoError(t, err)
		for line := range strings.Lines(string(out)) {
			if name, link, ok := strings.Cut(line, " -> "); ok && !strings.HasPrefix(link, "/proc/") && !strings.HasPrefix(link, "pipe:") {
				fields := strings.Fields(name)
				files = append(files, fields[len(fields)-1]+" "+strings.TrimSpace(link))
			}
		}
		return files
	}
	before := inherited()
	x := Ones([]int{300, 300})
	x.MatMul(x)
	require.Equal(t, before, inherited())
}
