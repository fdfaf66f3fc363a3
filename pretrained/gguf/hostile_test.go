package gguf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

func hostileCases(t testing.TB) []testdata.HostileCase {
	cases := testdata.Hostile(t, "gguf")
	require.Len(t, cases, 72)
	return cases
}

func TestMain(m *testing.M) {
	testdata.ServeLimited(func(what, path string) (map[string]testdata.HostileTensor, error) {
		f, err := Open(path)
		tensors := map[string]testdata.HostileTensor{}
		if err == nil && what != "open" {
			err = readFile(f, func(t TensorInfo, s Stored, stored []byte) {
				sum := sha256.Sum256(stored)
				tensors[t.Name] = testdata.HostileTensor{DType: s.Type.String(), Shape: t.Shape, SHA256: hex.EncodeToString(sum[:16])}
			})
		}
		return tensors, err
	})
	os.Exit(m.Run())
}

// readFile reads all metadata, and all tensors as they are stored and as they are read.
func readFile(f *File, see func(t TensorInfo, s Stored, stored []byte)) error {
	m := f.Metadata()
	for _, key := range m.Keys() {
		if _, err := m.Value(key); err != nil {
			return err
		}
	}
	for _, t := range f.Tensors() {
		s, ok := f.Stored(t.Name)
		if !ok {
			return errors.New("not stored: " + t.Name)
		}
		stored := make([]byte, s.Bytes)
		if err := f.ReadStored(t.Name, stored, 0); err != nil {
			return err
		}
		data := make([]byte, t.Bytes)
		if err := f.ReadTensor(t.Name, data); err != nil && s.Type.CanDequantize() {
			return err
		}
		see(t, s, stored)
	}
	return nil
}

// TestHostileCorpus gives each case to a process of its own with 512 MB of address space and 2 s of CPU.
func TestHostileCorpus(t *testing.T) {
	for _, c := range hostileCases(t) {
		t.Run(c.ID, func(t *testing.T) {
			got := testdata.RunLimited(t, "", c.Path, 2)
			c.Check(t, got)
			if got.Error != "" {
				require.Regexp(t, `tensor "|at byte|not a file of this format`, got.Error, "says where")
			}
		})
	}
}

func TestNoDescriptorLeaks(t *testing.T) {
	open := func() []string {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("needs /proc")
		}
		var list []string
		for _, e := range entries {
			if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasSuffix(target, ".gguf") {
				list = append(list, target)
			}
		}
		return list
	}
	cases := hostileCases(t)
	f, err := Open(cases[slices.IndexFunc(cases, func(c testdata.HostileCase) bool { return c.ID == "gg_ok_baseline" })].Path)
	require.NoError(t, err)
	require.Len(t, open(), 1)
	require.NoError(t, f.Close())
	for _, c := range cases {
		if f, err := Open(c.Path); err == nil {
			require.NoError(t, f.Close())
		}
	}
	require.Empty(t, open())
}

// valid returns the valid files of the corpus that are accepted, by id.
func valid(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	for _, c := range hostileCases(t) {
		if c.Expected == "ok" && c.Alt == "" {
			data, err := os.ReadFile(c.Path)
			require.NoError(t, err)
			files[c.ID] = data
		}
	}
	require.Len(t, files, 12)
	return files
}

// readAll reads all of a file in memory. Without an error the tensors are consistent: in the file, one behind the other, of the
// bytes that type and shape need.
func readAll(t testing.TB, data []byte) error {
	f, err := NewFile(bytes.NewReader(data), int64(len(data)), "x")
	if err == nil {
		end := int64(0)
		err = readFile(f, func(info TensorInfo, s Stored, stored []byte) {
			if info.Numel()*info.DType.Bits() != info.Bytes*8 || int64(info.Numel()/s.Type.BlockLen()*s.Type.BlockBytes()) != s.Bytes || s.Offset < end {
				t.Fatalf("%+v %+v", info, s)
			}
			end = s.Offset + s.Bytes
			if !bytes.Equal(data[s.Offset:end], stored) {
				t.Fatalf("%+v: other bytes", info)
			}
		})
	}
	if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || e.File != "x" || e.Class == nil) {
		t.Fatalf("not a full *Error: %v", err)
	}
	return err
}

// same reports whether the tensors of two files have the same names, types and shapes.
func same(t testing.TB, a, b []byte) bool {
	var lists [2]string
	for i, data := range [][]byte{a, b} {
		f, err := NewFile(bytes.NewReader(data), int64(len(data)), "x")
		require.NoError(t, err)
		for _, info := range f.Tensors() {
			s, _ := f.Stored(info.Name)
			lists[i] += fmt.Sprintln(info.Name, s.Type, info.Shape)
		}
	}
	return lists[0] == lists[1]
}

func TestEveryTruncation(t *testing.T) {
	for id, data := range valid(t) {
		require.NoError(t, readAll(t, data), id)
		f, err := NewFile(bytes.NewReader(data), int64(len(data)), "x")
		require.NoError(t, err)
		end := int64(24) // of what must be there
		for _, info := range f.Tensors() {
			s, _ := f.Stored(info.Name)
			end = s.Offset + s.Bytes
		}
		step := 1
		if len(data) > 100_000 { // 20,000 strings
			step = 97
		}
		for n := 0; n < len(data); n += step {
			err := readAll(t, data[:n])
			if int64(n) < end {
				require.ErrorIs(t, err, ErrTruncated, "%s: %d of %d bytes", id, n, len(data))
			} else {
				require.NoError(t, err, "%s: %d of %d bytes", id, n, len(data))
				require.True(t, same(t, data, data[:n]))
			}
		}
	}
}

func TestRandomFlips(t *testing.T) {
	accepted, refused := 0, 0
	for id, data := range valid(t) {
		rounds := 1000
		if len(data) > 100_000 && testing.Short() {
			rounds = 100
		}
		r := rand.New(rand.NewPCG(1, uint64(len(id))))
		for range rounds {
			changed := bytes.Clone(data)
			changed[r.IntN(len(data))] ^= byte(1 << r.IntN(8))
			if readAll(t, changed) == nil {
				accepted++
			} else {
				refused++
			}
		}
	}
	t.Logf("%d flips accepted, %d refused", accepted, refused)
	require.Positive(t, accepted)
	require.Positive(t, refused)
}

// FuzzGGUF: what is accepted can be written, and is the same when it is read again.
func FuzzGGUF(f *testing.F) {
	for _, c := range hostileCases(f) {
		if data, err := os.ReadFile(c.Path); err == nil && len(data) < 10_000 {
			f.Add(data)
		}
	}
	for seed := range uint64(4) {
		c, r := random(seed)
		c.kv, c.infos = c.kv[10*seed:][:10], c.infos[10*seed:][:10]
		c.layOut(r)
		f.Add(c.bytes())
	}
	path := filepath.Join(f.TempDir(), "again.gguf")
	f.Fuzz(func(t *testing.T, data []byte) {
		if readAll(t, data) != nil {
			return
		}
		first, err := NewFile(bytes.NewReader(data), int64(len(data)), "x")
		require.NoError(t, err)
		require.NoError(t, WriteFile(t.Context(), path, first.Metadata(), first.Sources()))
		second, err := Open(path)
		require.NoError(t, err)
		defer second.Close()
		want, err := first.Metadata().MarshalJSON()
		require.NoError(t, err)
		got, err := second.Metadata().MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
		require.Equal(t, first.Len(), second.Len())
		for i, a := range first.Tensors() {
			b := second.Tensors()[i]
			require.Equal(t, fmt.Sprintln(a.Name, first.stored[i].Type, a.Shape, a.Bytes), fmt.Sprintln(b.Name, second.stored[i].Type, b.Shape, b.Bytes))
			var sums [2]string
			for n, f := range []*File{first, second} {
				stored := make([]byte, f.stored[i].Bytes)
				require.NoError(t, f.ReadStored(a.Name, stored, 0))
				sums[n] = digest(stored)
			}
			require.Equal(t, sums[0], sums[1])
		}
	})
}
