package thirdparty_test

import (
	"encoding/hex"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	thirdparty "github.com/torchgo/torchgo/third_party"
)

func TestPinsForm(t *testing.T) {
	p, err := thirdparty.Load()
	require.NoError(t, err)
	require.Equal(t, "2.15.0", p.Default)
	require.Equal(t, "cp"+p.Python.Version, p.Python.ABI)

	minors := map[string]bool{}
	used := map[string]bool{}
	for _, v := range p.Versions {
		require.Regexp(t, `^2\.1[1-5]\.\d+$`, v.Version)
		require.Regexp(t, `^cu\d+$`, v.CUDA)
		minors[v.Version[:4]] = true
		require.Len(t, v.Devices, 2)
		cpu, cuda := v.Devices["cpu"], v.Devices["cuda"]
		require.Len(t, cpu.Wheels, 3, v.Version)
		require.Subset(t, cuda.Wheels, cpu.Wheels)
		var bytes int64
		for _, f := range cpu.Wheels {
			bytes += p.Wheels[f].Size
		}
		require.Less(t, bytes, int64(650e6), v.Version)
		require.Greater(t, cpu.Unpacked, int64(400e6))
		require.Greater(t, cuda.Unpacked, cpu.Unpacked)
		projects := map[string]bool{}
		for _, f := range cuda.Wheels {
			used[f] = true
			projects[p.Wheels[f].Project] = true
		}
		for _, want := range []string{
			"torch", "nvidia-cuda-crt", "nvidia-cuda-runtime", "nvidia-cuda-cupti", "nvidia-nccl-cu13",
			"nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-nvshmem-cu13",
		} {
			require.True(t, projects[want], "%s lacks %s", v.Version, want)
		}
		require.Equal(t, v.Version, p.Wheels[cpu.Wheels[0]].Version)
		require.Contains(t, cpu.Wheels[0], "-"+p.Python.ABI+"-")
	}
	require.Len(t, minors, 5, "2.11 to 2.15")
	require.Len(t, p.Wheels, len(used), "a wheel that no version uses")

	for file, w := range p.Wheels {
		require.Equal(t, file, w.File)
		require.Equal(t, file, path.Base(file))
		parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
		require.Len(t, parts, 5, file)
		require.Equal(t, w.Project, strings.ReplaceAll(parts[0], "_", "-"))
		require.Equal(t, w.Version, parts[1])
		require.Contains(t, parts[4], "x86_64")
		sum, err := hex.DecodeString(w.SHA256)
		require.NoError(t, err)
		require.Len(t, sum, 32)
		require.Equal(t, strings.ToLower(w.SHA256), w.SHA256)
		require.Positive(t, w.Size)
	}
}

func TestFind(t *testing.T) {
	p, err := thirdparty.Load()
	require.NoError(t, err)
	for name, want := range map[string]string{
		"2.15.0": "2.15.0", "2.11": "2.11.0", "2.12": "2.12.1", "2.10.0": "", "2.15.9": "", "2": "", "": "", "2.1": "",
	} {
		v, ok := p.Find(name)
		require.Equal(t, want != "", ok, name)
		require.Equal(t, want, v.Version, name)
	}
	require.True(t, p.Supports("2.12.0"))
	require.False(t, p.Supports("2.16.0"))
	require.False(t, p.Supports("2.1.5"))
}

func TestWanted(t *testing.T) {
	p, err := thirdparty.Load()
	require.NoError(t, err)
	for _, c := range []struct {
		device, project, member string
		want                    bool
	}{
		{"cpu", "torch", "torch/lib/libtorch_cpu.so", true},
		{"cpu", "torch", "torch/lib/libtorch_cuda.so", false},
		{"cpu", "torch", "torch/lib/libtorch_python.so", false},
		{"cpu", "torch", "torch/include/ATen/core/Tensor.h", true},
		{"cpu", "torch", "torch/nn/modules/linear.py", false},
		{"cpu", "torch", "torch-2.15.0.dist-info/licenses/LICENSE", true},
		{"cpu", "torch", "torch-2.15.0.dist-info/RECORD", false},
		{"cpu", "nvidia-cuda-runtime", "nvidia/cu13/lib/libcudart.so.13", true},
		{"cpu", "nvidia-cuda-runtime", "nvidia/cu13/include/cuda.h", false},
		{"cpu", "nvidia-nccl-cu13", "nvidia/nccl/lib/libnccl.so.2", false},
		{"cuda", "torch", "torch/lib/libtorch_cuda_linalg.so", true},
		{"cuda", "torch", "torch/lib/libc10_cuda.so", true},
		{"cuda", "torch", "torch/lib/libtorch_python.so", false},
		{"cuda", "nvidia-nccl-cu13", "nvidia/nccl/lib/libnccl.so.2", true},
		{"cuda", "nvidia-nccl-cu13", "nvidia/nccl/include/nccl.h", true},
		{"cuda", "nvidia-cuda-runtime", "nvidia/cu13/lib/libcudart_static.a", false},
		{"cuda", "nvidia-cuda-crt", "nvidia/cu13/include/crt/host_defines.h", true},
	} {
		require.Equal(t, c.want, p.Wanted(c.device, c.project, c.member), "%v", c)
	}
}

func TestParseRefusesUnknownWheel(t *testing.T) {
	_, err := thirdparty.Parse([]byte(`{"versions":[{"version":"1.0.0","devices":{"cpu":{"wheels":["a.whl"]}}}]}`))
	require.ErrorContains(t, err, "a.whl")
}
