package gguf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/ggml"
	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/internal/weights"
)

func readJSON(t *testing.T, path string, to any) {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, to))
}

func open(t testing.TB, path string) *File {
	f, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	return f
}

// float32s reads a tensor of floats of any size as float32.
func float32s(t testing.TB, f *File, info TensorInfo) []byte {
	data := make([]byte, info.Bytes)
	require.NoError(t, f.ReadTensor(info.Name, data))
	if info.DType == weights.F32 {
		return data
	}
	s, _ := f.Stored(info.Name)
	out := make([]float32, info.Numel())
	require.NoError(t, ggml.Dequantize(s.Type, out, data))
	data, err := binary.Append(nil, binary.LittleEndian, out)
	require.NoError(t, err)
	return data
}

func digest(p []byte) string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// TestWholeFiles compares every tensor, bit for bit, with gguf-py's dequantization and, where the rows of q and k are not
// reordered, with what transformers loads.
func TestWholeFiles(t *testing.T) {
	dir := testdata.Open(t, "gguf")
	for _, typ := range []string{"F16", "Q4_0", "Q8_0"} {
		t.Run(typ, func(t *testing.T) {
			var want struct{ SD, Dequantized map[string]string }
			readJSON(t, filepath.Join(dir, "llama-"+typ+".json"), &want)
			f := open(t, filepath.Join(dir, "llama-"+typ+".gguf"))
			require.Equal(t, 3, f.Version())
			got := map[string]string{}
			for _, info := range f.Tensors() {
				got[info.Name] = digest(float32s(t, f, info))
				s, ok := f.Stored(info.Name)
				require.True(t, ok)
				if strings.Contains(info.Name, "norm") {
					require.Equal(t, "F32", s.Type.String())
					require.True(t, info.Plain())
				} else {
					require.Equal(t, typ, s.Type.String())
					require.Equal(t, typ == "F16", info.Plain())
				}
			}
			require.Equal(t, want.Dequantized, got)

			names := map[string]string{"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight", "output.weight": "lm_head.weight"}
			for i := range 2 {
				for name, model := range map[string]string{"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_v": "self_attn.v_proj",
					"attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"} {
					names[fmt.Sprintf("blk.%d.%s.weight", i, name)] = fmt.Sprintf("model.layers.%d.%s.weight", i, model)
				}
			}
			require.Len(t, names, len(want.SD)-4)
			for name, model := range names {
				require.Equal(t, want.SD[model], got[name], name)
			}
			info, ok := f.Tensor("blk.1.ffn_down.weight")
			require.True(t, ok)
			require.Equal(t, []int{64, 96}, info.Shape)
		})
	}
}

func TestQuantizedFiles(t *testing.T) {
	dir := testdata.Open(t, "gguf-quants")
	folders, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.NotEmpty(t, folders)
	for _, folder := range folders {
		t.Run(folder.Name(), func(t *testing.T) {
			var want struct {
				Digests map[string]string `json:"sha256_fp32_dequant_by_gguf_name"`
			}
			readJSON(t, filepath.Join(dir, folder.Name(), "inputs.json"), &want)
			f := open(t, filepath.Join(dir, folder.Name(), "model.gguf"))
			require.Len(t, want.Digests, 9)
			require.Equal(t, len(want.Digests)+3, f.Len()) // and three norms
			for name, sum := range want.Digests {
				info, ok := f.Tensor(name)
				require.True(t, ok)
				require.False(t, info.Plain())
				require.Equal(t, weights.F32, info.DType)
				require.Equal(t, sum, digest(float32s(t, f, info)), name)
			}
		})
	}
}

// TestParts reads parts of tensors of every type, at all offsets, into memory that is not aligned too.
func TestParts(t *testing.T) {
	for _, c := range testdata.Hostile(t, "gguf") {
		if c.ID != "gg_ok_all_types" {
			continue
		}
		f := open(t, c.Path)
		require.Equal(t, 21, f.Len())
		for _, info := range f.Tensors() {
			whole := make([]byte, info.Bytes)
			require.NoError(t, f.ReadTensor(info.Name, whole))
			room := make([]byte, info.Bytes+3)
			step := 1
			if testing.Short() {
				step = 13
			}
			for off := 0; off < info.Bytes; off += step {
				for _, n := range []int{0, 1, 3, 4, 131, 1024, 2500, info.Bytes - off} {
					part := room[off%4:][:min(n, info.Bytes-off)]
					clear(part)
					require.NoError(t, f.ReadPart(info.Name, part, off))
					if !bytes.Equal(whole[off:][:len(part)], part) {
						t.Fatalf("%s: %d bytes from %d", info.Name, n, off)
					}
				}
			}
			require.ErrorIs(t, f.ReadPart(info.Name, make([]byte, 2), info.Bytes-1), ErrBounds)
			s, _ := f.Stored(info.Name)
			for _, off := range []int64{-1, s.Bytes - 1, s.Bytes + 1, 1 << 62} {
				require.ErrorIs(t, f.ReadStored(info.Name, make([]byte, 2), off), ErrBounds)
			}
		}
		require.ErrorIs(t, f.ReadStored("x", nil, 0), ErrMissingTensor)
		_, ok := f.Stored("x")
		require.False(t, ok)
		return
	}
	t.Fatal("no such case")
}

func TestConcurrentReads(t *testing.T) {
	f := open(t, filepath.Join(testdata.Open(t, "gguf-quants"), "gguf-q4_k", "model.gguf"))
	const name = "blk.0.ffn_down.weight"
	info, _ := f.Tensor(name)
	whole := float32s(t, f, info)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			part := make([]byte, 10_000)
			for off := i; off+len(part) < info.Bytes; off += 7777 {
				if err := f.ReadPart(name, part, off); err != nil || !bytes.Equal(part, whole[off:][:len(part)]) {
					t.Errorf("%d: %v", off, err)
				}
			}
		})
	}
	wg.Wait()
}

func TestTruncatedWhileOpen(t *testing.T) {
	for _, name := range []string{"llama-Q4_0.gguf", "llama-F16.gguf"} {
		path := filepath.Join(testdata.Copy(t, "gguf"), name)
		f := open(t, path)
		require.NoError(t, os.Truncate(path, 5000))
		info, _ := f.Tensor("output.weight")
		err := f.ReadTensor(info.Name, make([]byte, info.Bytes))
		require.ErrorIs(t, err, ErrTruncated)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, `tensor "output.weight"`)
		require.ErrorIs(t, f.ReadStored(info.Name, make([]byte, 100), 0), ErrTruncated)
		require.ErrorIs(t, f.Unchanged(), ErrTruncated)
	}
}
