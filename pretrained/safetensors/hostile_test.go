package safetensors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

func TestMain(m *testing.M) {
	testdata.ServeLimited(func(_, path string) (map[string]testdata.HostileTensor, error) {
		_, err := Open(path)
		return nil, err
	})
	if dir := os.Getenv(writeEnv); dir != "" {
		writeChild(dir)
		return
	}
	os.Exit(m.Run())
}

// TestLargestHeaders stays within the same address space on the largest headers that are allowed, which
// take 0.1 to 1.5 s of CPU.
func TestLargestHeaders(t *testing.T) {
	if testing.Short() {
		t.Skip("writes files of 100 MB")
	}
	if _, err := os.Stat("/proc/self/statm"); err != nil {
		t.Skip("needs /proc")
	}
	members := func(open, format, end string, limit int) string {
		b := []byte(open)
		for i := 0; i < limit && len(b)+len(end)+100 < MaxHeaderBytes; i++ {
			if i > 0 {
				b = append(b, ',')
			}
			b = fmt.Appendf(b, format, i)
		}
		return string(b) + end
	}
	const entry = `"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}`
	for _, c := range []struct {
		name   string
		header func() string
		class  string // "" if it is valid
	}{
		{"all tensors that are allowed", func() string { return members("{", entry, "}", MaxTensors) }, ""},
		{"a tensor more", func() string { return members("{", entry, "}", MaxTensors+1) }, "limit"},
		{"many members in a field that is skipped", func() string {
			return members(`{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0],"x":{`, `"%x":0`, "}}}", 1<<62)
		}, "limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			header := c.header()
			path := filepath.Join(t.TempDir(), "x.safetensors")
			f, err := os.Create(path)
			require.NoError(t, err)
			require.NoError(t, binary.Write(f, binary.LittleEndian, uint64(len(header))))
			_, err = f.WriteString(header)
			require.NoError(t, err)
			require.NoError(t, f.Close())
			got := testdata.RunLimited(t, "", path, 10)
			if c.class == "" {
				require.Empty(t, got.Error)
			} else {
				require.Equal(t, []string{c.class}, got.Classes, got.Error)
			}
			require.LessOrEqual(t, len(got.Error), 2000)
		})
	}
}

// within fails the test if f blocks.
func within(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("blocked")
	}
}

func TestSpecialFilesDontBlock(t *testing.T) {
	dir := t.TempDir()
	make := map[string]func(path string) error{
		"FIFO": func(p string) error { return syscall.Mkfifo(p, 0o600) },
		"socket": func(p string) error {
			l, err := net.Listen("unix", p)
			if err == nil {
				t.Cleanup(func() { l.Close() })
			}
			return err
		},
		"device": func(p string) error { return os.Symlink("/dev/zero", p) },
		"folder": func(p string) error { return os.Mkdir(p, 0o700) },
	}
	for kind, f := range make {
		t.Run(kind, func(t *testing.T) {
			path := filepath.Join(dir, kind+".safetensors")
			require.NoError(t, f(path))
			within(t, func() {
				_, err := Open(path)
				require.ErrorIs(t, err, ErrNotRegular)
				require.ErrorContains(t, err, kind)
				_, err = ReadIndex(path)
				require.ErrorIs(t, err, ErrNotRegular)
			})
		})
	}
}

// validFiles returns the valid files of the corpus, by id.
func validFiles(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	for _, c := range testdata.Hostile(t, "safetensors") {
		if c.Expected == "ok" {
			data, err := os.ReadFile(c.Path)
			require.NoError(t, err)
			files[c.ID] = data
		}
	}
	require.Len(t, files, 18)
	return files
}

// readAll reads each tensor of a file in memory. If there is no error the tensors are consistent: the bytes
// are those that dtype and shape need, and all bytes of the file belong to the header or one tensor.
func readAll(t testing.TB, data []byte) error {
	f, err := NewFile(bytes.NewReader(data), int64(len(data)), "x")
	if err != nil {
		if e := (*Error)(nil); !errors.As(err, &e) || e.File != "x" || e.Class == nil {
			t.Fatalf("not a full *Error: %v", err)
		}
		return err
	}
	total, plain := 0, true
	for _, info := range f.Tensors() {
		if info.Numel()*info.DType.Bits() != info.Bytes*8 {
			t.Fatalf("%+v", info)
		}
		buf := make([]byte, info.Bytes)
		if err := f.ReadTensor(info.Name, buf); err != nil {
			if e := (*Error)(nil); !errors.As(err, &e) || e.File != "x" || e.Class == nil || info.Plain() && e.Class != ErrBadValue {
				t.Fatalf("not a full *Error: %v", err)
			}
			return err
		}
		if !info.Plain() { // compressed
			plain = false
			continue
		}
		if !bytes.Equal(data[info.Offset:info.Offset+int64(info.Bytes)], buf) {
			t.Fatalf("%+v: other bytes", info)
		}
		total += info.Bytes
	}
	header := int(data[0]) | int(data[1])<<8 | int(data[2])<<16 | int(data[3])<<24
	if plain {
		require.Equal(t, len(data), 8+header+total)
	}
	return nil
}

func TestEveryTruncation(t *testing.T) {
	for id, data := range validFiles(t) {
		require.NoError(t, readAll(t, data), id)
		header := 8 + int(binary.LittleEndian.Uint64(data))
		step := 1
		if testing.Short() && len(data) > 100_000 {
			step = 997
		}
		for n := 0; n < len(data); n += step {
			if n == header && len(data) > 100_000 {
				step = 997 // each cut in the data parses a long header
			}
			if readAll(t, data[:n]) == nil {
				t.Fatalf("%s: accepted with %d of %d bytes", id, n, len(data))
			}
		}
		if readAll(t, data[:len(data)-1]) == nil || readAll(t, append(data[:len(data):len(data)], 0)) == nil {
			t.Fatalf("%s: accepted with a byte less or more", id)
		}
	}
}

func TestRandomFlips(t *testing.T) {
	accepted, refused := 0, 0
	for id, data := range validFiles(t) {
		state := uint64(len(id))
		next := func(n int) int {
			state = state*6364136223846793005 + 1442695040888963407
			return int((state >> 33) % uint64(n))
		}
		rounds := 1000
		if len(data) > 100_000 && testing.Short() {
			rounds = 20
		}
		for range rounds {
			changed := bytes.Clone(data)
			changed[next(len(data))] ^= byte(1 << next(8))
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

func FuzzHeader(f *testing.F) {
	for _, c := range testdata.Hostile(f, "safetensors") {
		if data, err := os.ReadFile(c.Path); err == nil && len(data) < 10_000 {
			f.Add(data)
		}
	}
	f.Add(compressedFile(f, func(head string) string { return head }))
	f.Fuzz(func(t *testing.T, data []byte) {
		if readAll(t, data) != nil {
			return
		}
		// What is accepted can be written, and is the same when it is read again.
		first, err := NewFile(bytes.NewReader(data), int64(len(data)), "x")
		require.NoError(t, err)
		var sources []Source
		for _, info := range first.Tensors() {
			buf := make([]byte, info.Bytes)
			require.NoError(t, first.ReadTensor(info.Name, buf))
			sources = append(sources, Source{info.Name, info.DType, info.Shape, Data(buf)})
		}
		head, _, err := encodeHeader(sources, first.Metadata())
		require.NoError(t, err)
		for _, s := range sources {
			w := bytes.NewBuffer(head)
			require.NoError(t, s.Write(w))
			head = w.Bytes()
		}
		second, err := NewFile(bytes.NewReader(head), int64(len(head)), "x")
		require.NoError(t, err)
		require.Equal(t, first.Metadata(), second.Metadata())
		for _, info := range first.Tensors() {
			again, ok := second.Tensor(info.Name)
			require.True(t, ok)
			again.Offset = info.Offset
			require.Equal(t, info, again)
		}
	})
}

func FuzzIndex(f *testing.F) {
	for _, c := range testdata.Hostile(f, "hf_dir") {
		if data, err := os.ReadFile(filepath.Join(c.Path, "model.safetensors.index.json")); err == nil && len(data) < 10_000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := ParseIndex(data)
		if err != nil {
			var e *Error
			require.ErrorAs(t, err, &e)
			require.NotNil(t, e.Class)
			return
		}
		require.NotEmpty(t, x.WeightMap)
		for _, name := range x.Files() {
			require.True(t, filepath.IsLocal(name), "%q", name)
			require.Equal(t, filepath.Clean(name), name)
			require.NotContains(t, name, `\`)
		}
	})
}
