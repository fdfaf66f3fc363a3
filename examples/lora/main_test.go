package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained/peft"
	"github.com/torchgo/torchgo/torch"
)

func TestLora(t *testing.T) {
	before := torch.LiveTensors()
	dir := t.TempDir()
	var out strings.Builder
	require.NoError(t, run(context.Background(), &out, dir, 60))
	for _, task := range tasks {
		for city, answer := range task.answers {
			require.Contains(t, out.String(), fmt.Sprintf("%-32s %s\n", fmt.Sprintf(task.question, city), answer))
		}
		config, err := peft.ReadConfig(filepath.Join(dir, task.name))
		require.NoError(t, err)
		require.Equal(t, filepath.Join(dir, "base"), config.BaseModelNameOrPath)
		require.Len(t, config.TargetModules.List, 13, "all linear layers but the head")
	}
	require.Contains(t, out.String(), "training 7680 of")
	torch.Collect()
	require.LessOrEqual(t, torch.LiveTensors(), before)
}

func TestLoraRefuses(t *testing.T) {
	require.Error(t, run(context.Background(), io.Discard, "/dev/null", 1))
}
