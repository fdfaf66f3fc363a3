package wheel

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestArguments(t *testing.T) {
	w := Wheel{File: "nvidia_cuda_cupti-13.2.86-py3-none-manylinux_2_25_x86_64.whl", Project: "nvidia-cuda-cupti", Version: "13.2.86"}
	args := arguments(w, Python{"311", "cp", "cp311"}, "DEST")
	require.Equal(t, "download --no-deps --only-binary=:all: --progress-bar off --dest DEST --python-version 311 --implementation cp --abi cp311"+
		" --platform manylinux_2_25_x86_64 nvidia-cuda-cupti==13.2.86", strings.Join(args, " "))
	w = Wheel{File: "m-1.0-py3-none-any.whl", Project: "m", Version: "1.0"}
	require.Equal(t, "download --no-deps --only-binary=:all: --progress-bar off --dest DEST --platform any m==1.0",
		strings.Join(arguments(w, Python{}, "DEST"), " "))
}
