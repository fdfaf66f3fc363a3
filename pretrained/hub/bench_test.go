package hub

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/hubtest"
)

// BenchmarkDownload is the whole way of a file of 256 MiB from a server on this machine into the cache,
// hashed and synced; one transfer, and four at once.
func BenchmarkDownload(b *testing.B) {
	data := noise(30, 256<<20)
	s := hubtest.New(b)
	s.Commit("org/name", map[string][]byte{weights: data})
	for name, step := range map[string]int64{"one": 1 << 40, "four": 64 << 20} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				dir, err := os.MkdirTemp(b.TempDir(), "")
				require.NoError(b, err)
				c := client(b, s, Options{CacheDir: dir, segment: step})
				_, err = resolve(b, c, Repo{ID: "org/name"}).File(b.Context(), weights)
				require.NoError(b, err)
				require.NoError(b, os.RemoveAll(dir))
			}
		})
	}
}
