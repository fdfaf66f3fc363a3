package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/checkpoint"
)

// GGUF files are listed under ggml's names with the digests of their stored bytes. JSON has all metadata, the text what
// fits a screen.
func TestInspectGGUF(t *testing.T) {
	for _, c := range testdata.Hostile(t, "gguf") {
		switch c.ID {
		case "gg_ok_all_types":
			var l checkpoint.Listing
			require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", c.Path, "--json", "--digest")), &l))
			require.Len(t, l.Tensors, len(c.Tensors))
			for _, x := range l.Tensors {
				want := c.Tensors[x.Name]
				require.Equal(t, want.DType, x.DType)
				require.Equal(t, want.Shape, x.Shape)
				require.Equal(t, want.SHA256, x.SHA256[:32])
			}
		case "gg_ok_big_vocab":
			require.Contains(t, succeeds(t, "", "inspect", c.Path), `"… 19992 more"`)
			var l struct{ Metadata map[string]any }
			require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "inspect", c.Path, "--json")), &l))
			require.Len(t, l.Metadata["tokenizer.ggml.tokens"], 20_000)
		}
	}
}
