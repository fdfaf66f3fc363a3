package main

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/torch"
)

func TestFinetune(t *testing.T) {
	before := torch.LiveTensors()
	var out strings.Builder
	require.NoError(t, run(context.Background(), &out, "", 80))
	for _, fact := range facts {
		answer := strings.Fields(fact)
		require.Regexp(t, strings.ReplaceAll(strings.ReplaceAll(question(fact), "[", `\[`), "]", `\]`)+` +`+answer[len(answer)-1], out.String())
	}
	require.Contains(t, out.String(), "15 words become 19, in 24 rows")
	torch.Collect()
	require.LessOrEqual(t, torch.LiveTensors(), before)
}

func TestFinetuneRefuses(t *testing.T) {
	require.Error(t, run(context.Background(), io.Discard, filepath.Join(t.TempDir(), "none"), 1))
}
