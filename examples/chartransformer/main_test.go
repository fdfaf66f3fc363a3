package main

import (
	"bytes"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/torchgo/torchgo/torch"
)

func tiny(t *testing.T) config {
	return config{text: filepath.Join("..", "..", "LICENSE"), chart: filepath.Join(t.TempDir(), "out", "loss.png"),
		steps: 60, batch: 8, context: 16, hidden: 32, heads: 2, layers: 2, prompt: "The ", length: 20, seed: 1}
}

func TestTransformerLearns(t *testing.T) {
	runtime.LockOSThread()
	before := torch.LiveTensors()
	var out strings.Builder
	cfg := tiny(t)
	losses, err := run(t.Context(), &out, cfg)
	require.NoError(t, err)
	require.Len(t, losses, cfg.steps)
	require.InDelta(t, 4.4, losses[0], 0.6) // about ln 76: it knows nothing yet
	require.Less(t, losses[cfg.steps-1], 3.0)
	_, sampled, _ := strings.Cut(out.String(), "loss.png\n\n")
	require.Equal(t, len(cfg.prompt)+cfg.length+1, len([]rune(sampled)), out.String())
	require.True(t, strings.HasPrefix(sampled, cfg.prompt))
	require.Equal(t, before, torch.LiveTensors())

	picture, err := os.ReadFile(cfg.chart)
	require.NoError(t, err)
	require.True(t, bytes.HasPrefix(picture, []byte("\x89PNG")))
}

func TestUnknownCharacters(t *testing.T) {
	cfg := tiny(t)
	cfg.prompt = "№"
	_, err := run(t.Context(), &strings.Builder{}, cfg)
	require.ErrorContains(t, err, "is not in the text")
	cfg.text, cfg.prompt = filepath.Join(t.TempDir(), "short"), "s"
	require.NoError(t, os.WriteFile(cfg.text, []byte("short"), 0o644))
	_, err = run(t.Context(), &strings.Builder{}, cfg)
	require.ErrorContains(t, err, "too short")
}

// A loss that falls from 4 to 0 is the diagonal of the plot, and nothing is above it.
func TestChart(t *testing.T) {
	losses := make([]float64, 401)
	for i := range losses {
		losses[i] = 4 - float64(i)/100
	}
	var b bytes.Buffer
	require.NoError(t, writeChart(&b, losses))
	img, err := png.Decode(&b)
	require.NoError(t, err)
	require.Equal(t, chartWidth, img.Bounds().Dx())
	require.Equal(t, chartHeight, img.Bounds().Dy())
	blueish := func(x, y int) bool {
		c := color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)
		return int(c.B)-int(c.R) > 24
	}
	for _, at := range []float64{0.1, 0.5, 0.9} {
		x := margin + int(at*(chartWidth-margin-18))
		first := 0
		for first < chartHeight && !blueish(x, first) {
			first++
		}
		// The running mean lies about twenty steps, a fifth of a unit, above.
		diagonal := 9 + at*(chartHeight-margin-9)
		require.InDelta(t, diagonal-0.2/4*(chartHeight-margin-9), first, 8, "at %v of the width", at)
	}
}
