package modelfolder

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestIndexIsJSON(t *testing.T) {
	var index struct {
		Metadata  map[string]int64
		WeightMap map[string]string `json:"weight_map"`
	}
	c := Checkpoint{Shards: []Shard{{Tensors: []Tensor{{"é\n", 3, 3}}}, {Tensors: []Tensor{{"b", 16, 4}, {"tied to b", 0, 0}}}}}
	require.NoError(t, json.Unmarshal(c.encodeIndex([]string{"x", "y"}), &index))
	require.Equal(t, map[string]int64{"total_parameters": 7, "total_size": 19}, index.Metadata)
	require.Equal(t, map[string]string{"é\n": "x", "b": "y", "tied to b": "y"}, index.WeightMap)
}
