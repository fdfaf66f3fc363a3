package pickle

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// A file of more than 4 GiB that torch.save wrote, with holes for the data.
func TestReadsZip64(t *testing.T) {
	var ref struct{ Pieces [][2]any }
	text, err := os.ReadFile(filepath.Join(testdata.Open(t, "torchsave"), "zip64.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &ref))
	file := &sparse{}
	for _, piece := range ref.Pieces {
		data, err := hex.DecodeString(piece[1].(string))
		require.NoError(t, err)
		at := int64(piece[0].(float64))
		file.pieces = append(file.pieces, sparsePiece{at, data})
		file.n = at + int64(len(data))
	}
	require.Greater(t, file.n, int64(1)<<32)
	f, err := NewFile(file, file.n, "zip64.pt")
	require.NoError(t, err)
	want := map[string]int{"a": 32, "b": 1<<32 + 64, "c": 24, "d": 0}
	require.Equal(t, len(want), f.Len())
	for name, size := range want {
		ti, ok := f.Tensor(name)
		require.True(t, ok, name)
		require.Equal(t, size, ti.Bytes)
		require.True(t, ti.Plain())
		if name == "c" {
			require.Greater(t, ti.Offset, int64(1)<<32)
		}
		part := bytes.Repeat([]byte{1}, min(size, 64))
		require.NoError(t, f.ReadPart(name, part, size-len(part)))
		require.Equal(t, make([]byte, len(part)), part)
	}

	// The same archive with a 64-bit field that says something else is refused.
	for i := range file.pieces {
		data := file.pieces[i].data
		for at := 0; ; {
			k := bytes.Index(data[at:], []byte{0x40, 0, 0, 0, 1, 0, 0, 0}) // 4 GiB + 64
			if k < 0 {
				break
			}
			data[at+k] ^= 1
			_, err := NewFile(file, file.n, "zip64.pt")
			require.ErrorIs(t, err, ErrBadZip)
			data[at+k] ^= 1
			at += k + 1
		}
	}
}
