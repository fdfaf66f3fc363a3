package pretrained

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// The rules that transformers has for its models are rules here: all plain renamings but those that look around,
// there and back, and all converters but two.
func TestTransformersRules(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "convert"), "rules.json"))
	require.NoError(t, err)
	var table struct {
		Renamings  [][]*string // pattern, replacement, name, what becomes of it, and of that backwards
		Converters []struct {
			Sources, Targets []string
			Ops              []map[string]any
		}
	}
	require.NoError(t, json.Unmarshal(data, &table))
	require.Equal(t, 781, len(table.Renamings)) //nolint:testifylint // Len prints them all
	looking, oneWay := 0, 0
	for _, row := range table.Renamings {
		r, text := KeyRule{*row[0], *row[1]}, fmt.Sprintf("%s -> %s: %s", *row[0], *row[1], *row[2])
		compiled, err := r.compile(scope{})
		if err != nil {
			require.Contains(t, r.Pattern, "(?", text)
			looking++
			continue
		}
		if got, _ := compiled.apply(*row[2]); got != *row[3] {
			t.Errorf("%s gives %s, not %s", text, got, *row[3])
		}
		back, ok := r.reverse()
		if !ok {
			oneWay++ // a * on one side
			continue
		}
		reversed, err := back.compile(scope{})
		require.NoError(t, err)
		if got, _ := reversed.apply(*row[3]); got != *row[4] {
			t.Errorf("%s: %s back gives %s, not %s", text, *row[3], got, *row[4])
		}
	}
	require.Equal(t, []int{21, 1}, []int{looking, oneWay})
	ops := map[string]func(dim int) Op{
		"MergeModulelist": func(d int) Op { return Stack{d} }, "SplitModulelist": func(d int) Op { return Unstack{d} },
		"Concatenate": func(d int) Op { return Concatenate{Dim: d} }, "Chunk": func(d int) Op { return Chunk{Dim: d} },
		"Split": func(d int) Op { return Split{d} }, "Interleave": func(d int) Op { return Interleave{Dim: d} },
		"Transpose": func(int) Op { return Transpose{Dim0: 1, Dim1: 2} }, "PermuteForRope": func(int) Op { return PermuteForRope{} },
	}
	var unknown []string
	for _, row := range table.Converters {
		c := Converter{}
		for _, s := range row.Sources {
			c.Sources = append(c.Sources, strings.ReplaceAll(s, `\.`, "."))
		}
		for _, s := range row.Targets {
			c.Targets = append(c.Targets, strings.ReplaceAll(s, `\.`, "."))
		}
		for _, op := range row.Ops {
			dim, _ := op["dim"].(float64)
			if op["check_dims"] == true {
				c.Ops = append(c.Ops, Transpose{Dim0: 1, Dim1: 2, IfNeeded: true})
				continue
			}
			if make := ops[op["op"].(string)]; make != nil {
				c.Ops = append(c.Ops, make(int(dim)))
			} else {
				unknown = append(unknown, op["op"].(string))
			}
		}
		if len(c.Ops) == len(row.Ops) {
			require.NoError(t, c.validate(), "%v", row)
			require.NoError(t, c.Reverse().validate(), "%v", row)
		}
	}
	require.Equal(t, []string{"ErnieFuseAndSplitTextVisionExperts", "ErnieFuseAndSplitTextVisionExperts"}, unknown)
}
