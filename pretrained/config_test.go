package pretrained

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/pyjson"
	"github.com/torchgo/torchgo/internal/testdata"
)

// tinyConfig has a field of each kind.
type tinyConfig struct {
	ConfigBase

	Size  int      `json:"size"`
	Rate  float64  `json:"rate"`
	Flag  bool     `json:"flag"`
	Act   string   `json:"act"`
	Pad   *int     `json:"pad"`
	Drop  *float64 `json:"drop"`
	Types []string `json:"types"`
	Any   any      `json:"any"`
}

func (c *tinyConfig) Validate() error { return CheckBounds(Bound{"size", c.Size, 1, 100}) }

func read(t *testing.T, text string, overrides map[string]any) (*tinyConfig, error) {
	raw, err := pyjson.Parse([]byte(text))
	require.NoError(t, err)
	c := &tinyConfig{ConfigBase: ConfigBase{ModelType: "tiny"}, Size: 7, Rate: 0.5, Act: "gelu"}
	return c, readConfig(c, raw, overrides)
}

func TestConfigReadsAndKeepsUnknownKeys(t *testing.T) {
	c, err := read(t, `{"size": 3, "rate": 0, "pad": null, "drop": 0.25, "types": ["a", "b"], "any": [1, 2.50],
		"zeta": {"b": 1e-12, "a": [NaN, -Infinity, 1e16, 0.0001, 100000.0]}, "name": "é\u2028😀\u007f\"\\",
		"big": 123456789012345678901234567890, "torch_dtype": "bfloat16", "_name_or_path": "x", "max_length": 20,
		"id2label": {"0": "no", "10": "yes", "2": "maybe"}, "label2id": {"no": 0, "yes": 10, "maybe": 2}}`, nil)
	require.NoError(t, err)
	require.Equal(t, 3, c.Size)
	require.Zero(t, c.Rate)
	require.Nil(t, c.Pad)
	require.Equal(t, 0.25, *c.Drop)
	require.Equal(t, "bfloat16", c.DType)
	require.Equal(t, 3, c.NumLabels())
	v, ok := c.Extra("zeta")
	require.True(t, ok)
	require.True(t, math.IsNaN(v.(map[string]any)["a"].([]any)[0].(float64)))
	c.Architectures = []string{"Tiny"}
	// What Python's json.dumps(..., indent=2, sort_keys=True) writes for the same values.
	require.Equal(t, `{
  "act": "gelu",
  "any": [
    1,
    2.5
  ],
  "architectures": [
    "Tiny"
  ],
  "big": 123456789012345678901234567890,
  "drop": 0.25,
  "dtype": "bfloat16",
  "flag": false,
  "id2label": {
    "0": "no",
    "2": "maybe",
    "10": "yes"
  },
  "label2id": {
    "maybe": 2,
    "no": 0,
    "yes": 10
  },
  "model_type": "tiny",
  "name": "\u00e9\u2028\ud83d\ude00\u007f\"\\",
  "pad": null,
  "rate": 0,
  "size": 3,
  "transformers_version": "5.23.0",
  "types": [
    "a",
    "b"
  ],
  "zeta": {
    "a": [
      {
        "__float__": "NaN"
      },
      {
        "__float__": "-Infinity"
      },
      1e+16,
      0.0001,
      100000.0
    ],
    "b": 1e-12
  }
}
`, string(configJSON(c, nil)))
}

func TestConfigOverrides(t *testing.T) {
	c, err := read(t, `{"size": 3, "extra": 1, "rate": 1}`, map[string]any{"size": 4, "extra": 2, "num_labels": 5})
	require.NoError(t, err)
	require.Equal(t, 4, c.Size)
	require.Equal(t, "LABEL_4", c.ID2Label[4])
	require.Equal(t, 4, c.Label2ID["LABEL_4"])
	var saved map[string]any
	require.NoError(t, json.Unmarshal(configJSON(c, nil), &saved))
	require.EqualValues(t, 4, saved["size"])
	require.EqualValues(t, 2, saved["extra"])
	require.Len(t, saved["id2label"], 5)
	require.NotContains(t, saved, "num_labels")
}

// What transformers 5.23.0 saves of a config.json that is loaded with overrides; labels that are not written are the
// two default ones.
func TestConfigLabels(t *testing.T) {
	two := `{"size": 3, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}, "label2id": {"LABEL_0": 0, "LABEL_1": 1}}`
	for _, c := range []struct {
		config             string
		overrides          map[string]any
		id2label, label2id string
	}{
		{`{"num_labels": 3}`, nil, `{"0":"LABEL_0","1":"LABEL_1","2":"LABEL_2"}`, `{"LABEL_0":0,"LABEL_1":1,"LABEL_2":2}`},
		{two, map[string]any{"num_labels": 1}, `{"0":"LABEL_0"}`, `{"LABEL_0":0}`},
		{two, map[string]any{"id2label": map[string]any{"0": "a"}}, `{"0":"a"}`, ``},
		{`{}`, map[string]any{"id2label": map[string]any{"0": "a"}}, `{"0":"a"}`, ``},
		{`{}`, map[string]any{"label2id": map[string]any{"a": 0, "b": 1}}, ``, `{"a":0,"b":1}`},
		{`{"id2label": {"0": "x"}, "label2id": {"x": 0}}`, map[string]any{"id2label": map[string]any{"0": "a", "1": "b"}},
			`{"0":"a","1":"b"}`, `{"x":0}`},
		{`{"id2label": {"0": "x"}}`, nil, `{"0":"x"}`, `null`},
	} {
		got, err := read(t, c.config, c.overrides)
		require.NoError(t, err, c.config)
		var saved map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(configJSON(got, nil), &saved))
		for key, want := range map[string]string{"id2label": c.id2label, "label2id": c.label2id} {
			if want == "" {
				require.NotContains(t, saved, key, "%s with %v", c.config, c.overrides)
			} else {
				require.JSONEq(t, want, string(saved[key]), "%s with %v", c.config, c.overrides)
			}
		}
	}
}

// A checkpoint of another type is saved as what it was loaded as.
func TestConfigSavesItsOwnModelType(t *testing.T) {
	c, err := read(t, `{"model_type": "other", "size": 3}`, nil)
	require.NoError(t, err)
	require.Contains(t, string(configJSON(c, nil)), `"model_type": "tiny"`)
}

// Numbers of a JSON document are numbers at every depth; the caller's map stays as it was.
func TestConfigOverridesOfNumbers(t *testing.T) {
	overrides := map[string]any{"any": map[string]any{"theta": json.Number("100.0"), "n": []any{json.Number("3")}}}
	c, err := read(t, `{"size": 3}`, overrides)
	require.NoError(t, err)
	require.Equal(t, map[string]any{"theta": 100.0, "n": []any{int64(3)}}, c.Any)
	require.Equal(t, json.Number("100.0"), overrides["any"].(map[string]any)["theta"])
}

func TestConfigRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"size": 8.0}`:                  "bad config: size: expected an integer, got 8.0",
		`{"size": "8"}`:                  `bad config: size: expected an integer, got "8"`,
		`{"size": null}`:                 "bad config: size: expected an integer, got null",
		`{"size": true}`:                 "bad config: size: expected an integer, got true",
		`{"size": 0}`:                    "bad config: size: expected 1 to 100, got 0",
		`{"size": 99999999999999999999}`: "bad config: size: expected an integer, got 99999999999999999999",
		`{"rate": "0.1"}`:                `bad config: rate: expected a number, got "0.1"`,
		`{"flag": 1}`:                    "bad config: flag: expected true or false, got 1",
		`{"act": 5}`:                     "bad config: act: expected a string, got 5",
		`{"pad": 1.5}`:                   "bad config: pad: expected an integer or null, got 1.5",
		`{"types": [1]}`:                 "bad config: types: expected a list of strings, got a list",
		`{"id2label": {"a": "x"}}`:       "bad config: id2label: expected an object from integers to strings, got an object",
		`{"num_labels": -1}`:             "bad config: num_labels: expected 0 to 1048576, got -1",
		`{"num_labels": 1e9}`:            "bad config: num_labels: expected 0 to 1048576, got 1000000000.0",
		`{"num_labels": 1000000000}`:     "bad config: num_labels: expected 0 to 1048576, got 1000000000",
		`{"problem_type": "single_label_classification", "num_labels": 1}`: "bad config: problem_type: expected regression for one label, got single_label_classification",
	} {
		_, err := read(t, text, nil)
		require.EqualError(t, err, want, text)
		require.ErrorIs(t, err, ErrBadConfig)
	}
	_, err := read(t, `{}`, map[string]any{"nope": 1})
	require.ErrorIs(t, err, ErrArgument)
	for _, text := range []string{``, `[]`, `null`, `{"a": 1, "a": 1}`, `{"a": 1} x`, "{\"a\": \"\xff\"}"} {
		_, err := pyjson.Parse([]byte(text))
		require.Error(t, err, text)
	}
}

// Every config.json of the reference data was written by transformers' save_pretrained: reading and writing
// one must give the same bytes.
func TestConfigRoundTripsByteForByte(t *testing.T) {
	n := 0
	for _, group := range []string{"models-bert", "loader"} {
		paths, err := filepath.Glob(filepath.Join(testdata.Open(t, group), "*", "config.json"))
		require.NoError(t, err)
		for _, path := range paths {
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			raw, err := pyjson.Parse(want)
			require.NoError(t, err)
			if raw["dtype"] == nil {
				continue // edited by hand for its case
			}
			arch, _, err := choose("", raw)
			require.NoError(t, err)
			c := arch.NewConfig()
			require.NoError(t, readConfig(c, raw, nil))
			require.Equal(t, string(want), string(configJSON(c, nil)), path)
			n++
		}
	}
	require.Greater(t, n, 25)
}

func TestPyFloat(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0", 1: "1.0", -2.5: "-2.5", 1e-12: "1e-12", 0.0001: "0.0001", 0.00001: "1e-05",
		1e15: "1000000000000000.0", 1e16: "1e+16", 123456789.125: "123456789.125", 1.5e-7: "1.5e-07", 5e-324: "5e-324",
		0.1: "0.1", 1.7976931348623157e308: "1.7976931348623157e+308"} { // repr(f)
		require.Equal(t, want, pyjson.Float(f))
	}
}
