package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/internal/testdata"
)

func TestOffloadedToDisk(t *testing.T) {
	dir := filepath.Join(testdata.Open(t, "models-bert"), "bert-mlm")
	in, _ := evalInputs(t, dir)
	out := filepath.Join(t.TempDir(), "out.safetensors")
	succeeds(t, "", "eval", dir, "--inputs", in, "--outputs", out, "--hidden-states")
	want, err := os.ReadFile(out)
	require.NoError(t, err)
	digests := stateOf(t, dir)
	for _, placed := range []string{"disk", `{"": "cpu", "bert.encoder": "disk"}`, `{"bert": "disk", "cls": "cpu"}`} {
		require.Equal(t, digests, stateOf(t, dir, "--device-map", placed))
		require.NoError(t, os.Remove(out))
		succeeds(t, "", "eval", dir, "--inputs", in, "--outputs", out, "--hidden-states", "--device-map", placed)
		got, err := os.ReadFile(out)
		require.NoError(t, err)
		require.True(t, string(want) == string(got), placed)
	}
	var report struct {
		DeviceMap map[string]string `json:"device_map"`
		BytesRead int               `json:"bytes_read"`
	}
	require.NoError(t, json.Unmarshal([]byte(succeeds(t, "", "load", dir, "--json", "--device-map", `{"": "disk", "cls": "cpu"}`)), &report))
	require.Equal(t, map[string]string{"": "disk", "cls": "cpu"}, report.DeviceMap)
	require.Positive(t, report.BytesRead)

	text := succeeds(t, "", "load", dir, "--device-map", `{"": "cpu", "bert.encoder.layer.0": "disk", "bert.encoder.layer.1": "disk"}`)
	require.Contains(t, text, "  on cpu      all the rest\n  on disk     bert.encoder.layer.{0,1}\n")

	fails(t, cli.Failed, "can't be trained", "eval", dir, "--inputs", in, "--outputs", out, "--grad", "--device-map", "disk")
	fails(t, cli.Failed, "no entry for the parameter cls.predictions.bias", "load", dir, "--device-map", `{"bert": "disk"}`)
	folder := filepath.Join(t.TempDir(), "offload")
	base := filepath.Join(testdata.Open(t, "models-bert"), "bert")
	fails(t, cli.Failed, "give an offload folder", "load", base, "--class", "BertForMaskedLM", "--device-map", "disk")
	succeeds(t, "", "load", base, "--class", "BertForMaskedLM", "--device-map", "disk", "--offload-folder", folder)
	require.FileExists(t, filepath.Join(folder, "cls.predictions.bias.safetensors"))
}
