package pickle

import (
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// A record that the directory calls a folder has no data for torch.load, which then gives uninitialised memory as weights.
// (Found by comparing what both make of flipped bits.)
func TestAFolderIsNoRecord(t *testing.T) {
	found := 0
	for _, c := range testdata.Hostile(t, "torch_zip") {
		if c.ID != "pt_ok_baseline" && c.ID != "pt_ok_crc_off" {
			continue
		}
		data, err := os.ReadFile(c.Path)
		require.NoError(t, err)
		for at := 0; ; found++ {
			i := bytes.Index(data[at:], []byte(sigCentral))
			if i < 0 {
				break
			}
			at += i + 4
			bad := bytes.Clone(data)
			bad[at+34] |= dosFolder
			_, err := NewFile(bytes.NewReader(bad), int64(len(bad)), "x")
			require.ErrorIs(t, err, ErrBadZip)
		}
	}
	require.Greater(t, found, 5)
}
