package pretrained_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
)

// saveBoth saves the model in dir as it is and compressed.
func saveBoth(t *testing.T, dir string, opts pretrained.Options, shard string) (plain, small string) {
	m, _ := load(t, dir, opts)
	plain, small = t.TempDir(), t.TempDir()
	require.NoError(t, pretrained.SavePretrained(ctx, m, plain, pretrained.SaveOptions{MaxShardSize: shard}))
	require.NoError(t, pretrained.SavePretrained(ctx, m, small, pretrained.SaveOptions{MaxShardSize: shard, Compress: true}))
	return plain, small
}

// A compressed checkpoint loads as the one without does, to the last bit: mapped or not, cast, with weights on disk.
// Saved without, it gives the same files again.
func TestCompressedCheckpoints(t *testing.T) {
	for name, c := range placedModels {
		for _, shard := range []string{"", "20KB"} {
			plain, small := saveBoth(t, filepath.Join(testdata.Open(t, c.group), c.dir), pretrained.Options{}, shard)
			for i, opts := range []pretrained.Options{{}, {DisableMmap: true}, {DType: torch.Float16}, {DeviceMap: pretrained.DeviceMap{"": "cpu", c.layers + ".1": "disk"}}} {
				t.Run(fmt.Sprint(name, " ", shard, " ", i), func(t *testing.T) {
					want, r := load(t, plain, opts)
					got, rs := load(t, small, opts)
					require.Equal(t, values(t, want), values(t, got))
					require.Equal(t, r.MissingKeys, rs.MissingKeys)
					require.Equal(t, r.UnexpectedKeys, rs.UnexpectedKeys)
					require.Equal(t, r.DType, rs.DType)
					if i == 0 {
						equalModels(t, want, got)
						back := t.TempDir()
						require.NoError(t, pretrained.SavePretrained(ctx, got, back, pretrained.SaveOptions{MaxShardSize: shard}))
						require.Equal(t, tensorsOf(t, plain), tensorsOf(t, back))
						sameFiles(t, plain, back)
					}
				})
			}
		}
	}
}

// Experts that are stacked when they are loaded come out of compressed files, too.
func TestCompressedExperts(t *testing.T) {
	dir, report, opts := moe(t, "mixtral")
	for _, opts.DType = range []torch.DType{torch.Float32, torch.Float16} {
		_, small := saveBoth(t, dir, opts, "20KB")
		m, _ := load(t, small, opts)
		want := report.State
		if opts.DType == torch.Float16 {
			want = report.Float16
		}
		for key, x := range state(m) {
			require.Equal(t, want[key].Digest, digest(x), key)
		}
		require.Len(t, state(m), len(want))
	}
}

// sameFiles compares all files of two folders.
func sameFiles(t *testing.T, a, b string) {
	entries, err := os.ReadDir(a)
	require.NoError(t, err)
	others, err := os.ReadDir(b)
	require.NoError(t, err)
	require.Len(t, others, len(entries))
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join(a, e.Name()))
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(b, e.Name()))
		require.NoError(t, err)
		require.True(t, string(want) == string(got), e.Name())
	}
}

// Damage to a compressed checkpoint is an error with the tensor's name, whichever bit it is, and no model.
func TestDamagedCompressedCheckpoint(t *testing.T) {
	_, small := saveBoth(t, loaderCase(t, "single"), pretrained.Options{}, "")
	path := filepath.Join(small, "model.safetensors")
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	head := 8 + int(data[0]) + int(data[1])<<8 + int(data[2])<<16
	for at := head; at < len(data); at += 1 + (len(data)-head)/50 {
		bad := []byte(string(data))
		bad[at] ^= 0x10
		require.NoError(t, os.WriteFile(path, bad, 0o600))
		m, _, err := pretrained.Load(ctx, small, pretrained.Options{})
		require.Nil(t, m)
		var e *pretrained.Error
		require.ErrorAs(t, err, &e)
		require.Equal(t, path, e.File)
		require.NotEmpty(t, e.Tensor)
		require.False(t, strings.Contains(err.Error(), "\n"))
	}
}

// An adapter is not compressed, and not silently so; the model below it may be.
func TestCompressedAdapterIsRefused(t *testing.T) {
	cases, m := adapterCorpus(t)
	i := slices.IndexFunc(cases, func(c testdata.HostileCase) bool { return c.ID == "peft_ok_lora" })
	_, err := m.LoadAdapter(ctx, cases[i].Path)
	require.NoError(t, err)
	dir := filepath.Join(t.TempDir(), "new")
	require.ErrorIs(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{Compress: true}), pretrained.ErrArgument)
	require.NoDirExists(t, dir)
	require.NoError(t, pretrained.SavePretrained(ctx, m, dir, pretrained.SaveOptions{Compress: true, BaseModel: true}))
}
