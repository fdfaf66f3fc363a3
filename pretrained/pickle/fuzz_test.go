package pickle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/metrics"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/internal/weights"
)

// check reads all that a file has, whatever it is: the error is of this package, memory and time are bounded by the file's size,
// tensors lie in the file. It returns what the file has, for comparing.
func check(t testing.TB, data []byte, o Options) (string, error) {
	before, start := allocated(), cpuTime()
	f, err := open(data, o)
	if n, limit := allocated()-before, uint64(2<<20+400*len(data)); n > limit {
		t.Fatalf("opening %d bytes allocates %d", len(data), n)
	}
	if d := cpuTime() - start; d > 2*time.Second && len(data) < 1<<20 {
		t.Fatalf("opening %d bytes takes %v of CPU", len(data), d)
	}
	if err != nil {
		return "", typed(t, err)
	}
	if n := int64(f.Len()); n > f.Size() {
		t.Fatalf("%d tensors in %d bytes", n, f.Size())
	}
	var seen strings.Builder
	for _, ti := range f.Tensors() {
		if ti.Plain() && ti.Offset+int64(ti.Bytes) > f.Size() {
			t.Fatalf("tensor %q ends at byte %d of %d", ti.Name, ti.Offset+int64(ti.Bytes), f.Size())
		}
		n := min(ti.Bytes, 64<<10)
		for _, off := range []int{0, ti.Bytes - n, (ti.Bytes - n) / 2} {
			part := make([]byte, n)
			if err := f.ReadPart(ti.Name, part, off); err != nil {
				if !errors.Is(err, ErrBadValue) {
					t.Fatalf("tensor %q: %v", ti.Name, err)
				}
				return "", typed(t, err)
			}
			fmt.Fprintf(&seen, "%q %v %v %08x\n", ti.Name, ti.DType, ti.Shape, crc32.ChecksumIEEE(part))
		}
	}
	if d, err := f.StateDict(); err != nil {
		_ = typed(t, err)
	} else if d.Len() > f.Len() {
		t.Fatalf("%d of %d tensors", d.Len(), f.Len())
	}
	return seen.String(), nil
}

func open(data []byte, o Options) (*File, error) {
	return NewFileWith(bytes.NewReader(data), int64(len(data)), "fuzz.pt", o)
}

func typed(t testing.TB, err error) error {
	var e *Error
	if !errors.As(err, &e) || e.Class == nil || e.File != "fuzz.pt" {
		t.Fatalf("no error of a class in the file: %v", err)
	}
	if strings.ContainsAny(err.Error(), "\n\x00") || len(err.Error()) > 2000 {
		t.Fatalf("no line of text: %q", err.Error())
	}
	return err
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func allocated() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// rewrite: what can be written is read again as it was.
func rewrite(t testing.TB, data []byte, seen string) {
	f, err := open(data, Options{})
	require.NoError(t, err)
	var b bytes.Buffer
	if err := Write(context.Background(), &b, f.Root()); err != nil {
		return // a frozen set, an Opaque value, a dtype that only older files have
	}
	again, err := check(t, b.Bytes(), Options{})
	require.NoError(t, err)
	require.Equal(t, seen, again)
}

func FuzzZip(f *testing.F) {
	for _, c := range hostileCases(f) {
		if data, err := os.ReadFile(c.Path); err == nil && len(data) < 10_000 {
			f.Add(data)
		}
	}
	for _, data := range referenceFiles(f) {
		if len(data) < 10_000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		seen, err := check(t, data, Options{})
		if _, kept := check(t, data, Options{KeepUnknown: true}); err == nil {
			require.NoError(t, kept)
			rewrite(t, data, seen)
		}
	})
}

// FuzzPickle gives the pickle alone, in an archive that is right, beside storages of a few sizes; and as the older format has it.
func FuzzPickle(f *testing.F) {
	add := func(data []byte) {
		for _, name := range []string{"data.pkl", "legacy"} {
			if p := picklesOf(f, data, name); p != nil && len(p) < 10_000 {
				f.Add(p)
			}
		}
	}
	for _, c := range hostileCases(f) {
		if data, err := os.ReadFile(c.Path); err == nil {
			add(data)
		}
	}
	for _, data := range referenceFiles(f) {
		add(data)
	}
	f.Fuzz(func(t *testing.T, pickle []byte) {
		for _, data := range [][]byte{around(pickle), append(bytes.Clone(legacyHead), pickle...)} {
			seen, err := check(t, data, Options{})
			if _, kept := check(t, data, Options{KeepUnknown: true}); err == nil {
				require.NoError(t, kept)
				rewrite(t, data, seen)
			}
		}
	})
}

// legacyHead is magic number, protocol and an empty dict of facts.
var legacyHead = []byte("\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.")

// picklesOf is a zip file's pickle, or what follows the facts in a legacy file.
func picklesOf(t testing.TB, data []byte, kind string) []byte {
	if kind == "legacy" {
		f, err := weights.New(bytes.NewReader(data), int64(len(data)), "fuzz.pt")
		require.NoError(t, err)
		m := &machine{src: newSource(f, 0, f.Size()), cut: ErrTruncated}
		for range 3 {
			if _, err := m.run(); err != nil {
				return nil
			}
		}
		return data[m.src.pos:]
	}
	i := bytes.Index(data, []byte("data.pkl"))
	if !bytes.HasPrefix(data, []byte(sigLocal)) || i < 0 {
		return nil
	}
	f, err := open(data, Options{KeepUnknown: true})
	if err != nil || f.archive == nil {
		if j := bytes.Index(data[i:], []byte("\x80\x02")); j >= 0 {
			rest := data[i+j:]
			if k := bytes.Index(rest, []byte("PK")); k > 0 {
				return rest[:k]
			}
		}
		return nil
	}
	r := f.archive.find("data.pkl")
	return data[r.offset : r.offset+r.size]
}

// around is an archive without checksums around a pickle, with storages "0" of 16 bytes, "1" of 8, "2" of 40, "3" of none.
func around(pickle []byte) []byte {
	var b, dir bytes.Buffer
	count := 0
	add := func(name string, data []byte) {
		head := make([]byte, 26)
		le.PutUint32(head[14:], uint32(len(data)))
		le.PutUint32(head[18:], uint32(len(data)))
		name = "archive/" + name
		le.PutUint16(head[22:], uint16(len(name)))
		at := b.Len()
		b.WriteString(sigLocal)
		b.Write(head)
		b.WriteString(name)
		b.Write(data)
		dir.WriteString(sigCentral)
		dir.Write([]byte{0, 0})
		dir.Write(head)
		dir.Write(make([]byte, 10))
		dir.Write(le.AppendUint32(nil, uint32(at)))
		dir.WriteString(name)
		count++
	}
	add("data.pkl", pickle)
	add("version", []byte("3\n"))
	for i, n := range []int{16, 8, 40, 0} {
		add(fmt.Sprintf("data/%d", i), bytes.Repeat([]byte{1}, n))
	}
	end := make([]byte, 22)
	copy(end, sigEnd)
	le.PutUint16(end[8:], uint16(count))
	le.PutUint16(end[10:], uint16(count))
	le.PutUint32(end[12:], uint32(dir.Len()))
	le.PutUint32(end[16:], uint32(b.Len()))
	return append(append(b.Bytes(), dir.Bytes()...), end...)
}

// referenceFiles are the files that torch.save has written, by name.
func referenceFiles(t testing.TB) map[string][]byte {
	files := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(testdata.Open(t, "pickle"), "*.pt"))
	require.NoError(t, err)
	require.Greater(t, len(paths), 30)
	for _, p := range paths {
		data, err := os.ReadFile(p)
		require.NoError(t, err)
		files[strings.TrimSuffix(filepath.Base(p), ".pt")] = data
	}
	return files
}

// validFiles are all files that can be read: those of torch.save, and the tricky ones of the corpus.
func validFiles(t testing.TB) map[string][]byte {
	files := referenceFiles(t)
	for _, c := range hostileCases(t) {
		if c.Expected == "ok" {
			data, err := os.ReadFile(c.Path)
			require.NoError(t, err)
			files[c.ID] = data
		}
	}
	for name, data := range files {
		if _, err := open(data, Options{}); err != nil {
			delete(files, name)
		}
	}
	require.Greater(t, len(files), 60)
	return files
}

func TestFuzzArchiveIsRight(t *testing.T) {
	seen, err := check(t, around(picklesOf(t, written(t, dict("w", floats(1, 2, 3, 4))), "data.pkl")), Options{})
	require.NoError(t, err)
	require.Contains(t, seen, `"w" F32 [4]`)
	seen, err = check(t, append(bytes.Clone(legacyHead), picklesOf(t, referenceFiles(t)["legacy-training"], "legacy")...), Options{})
	require.NoError(t, err)
	require.Contains(t, seen, `"model.embed.weight" F32 [7 4]`)
}

// TestEveryTruncation: no file that is cut can be read, but a legacy or tar file that loses no more than what nobody reads.
func TestEveryTruncation(t *testing.T) {
	for name, data := range validFiles(t) {
		whole, err := check(t, data, Options{})
		require.NoError(t, err, name)
		step := 1
		if len(data) > 20_000 || testing.Short() {
			step = 61
		}
		for n := 0; n < len(data); n += step {
			seen, err := check(t, data[:n], Options{})
			if err == nil {
				require.False(t, bytes.HasPrefix(data, []byte(sigLocal)), "%s: %d of %d bytes", name, n, len(data))
				require.Equal(t, whole, seen, "%s: %d of %d bytes", name, n, len(data))
			}
		}
	}
}

// TestRandomFlips: what has a checksum is refused or the same. What has none is refused or within bounds (check).
func TestRandomFlips(t *testing.T) {
	rounds := 1000
	if testing.Short() {
		rounds = 30
	}
	same, other, refused := 0, 0, 0
	for name, data := range validFiles(t) {
		whole, err := check(t, data, Options{})
		require.NoError(t, err, name)
		f, err := open(data, Options{})
		require.NoError(t, err)
		summed := f.archive != nil
		if summed {
			for _, r := range f.archive.records {
				summed = summed && (r.crc != 0 || r.size == 0)
			}
		}
		r := rand.New(rand.NewPCG(1, uint64(len(data))))
		for range rounds {
			changed := bytes.Clone(data)
			changed[r.IntN(len(data))] ^= byte(1 << r.IntN(8))
			seen, err := check(t, changed, Options{})
			switch {
			case err != nil:
				refused++
			case seen == whole:
				same++
			default:
				other++
				require.False(t, summed, "%s has checksums, and is\n%s\ninstead of\n%s", name, seen, whole)
			}
		}
	}
	t.Logf("%d flips change nothing that is read, %d do in files without checksums, %d are refused", same, other, refused)
	require.Positive(t, same)
	require.Positive(t, refused)
}
