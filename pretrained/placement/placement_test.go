package placement_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained/placement"
)

// recorded is a run of tools/placeref.
type recorded struct {
	MaxMemory       []budget          `json:"max_memory"`
	Sequential      map[string]string `json:"sequential"`
	Balanced        map[string]string `json:"balanced"`
	BalancedMemory  []budget          `json:"balanced_memory"`
	BalancedLow0    map[string]string `json:"balanced_low_0"`
	BalancedLow0Mem []budget          `json:"balanced_low_0_memory"`
	Accelerate      map[string]string `json:"accelerate"`
}

type budget placement.Budget

func (b *budget) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&b.Device, &b.Bytes})
}

func budgets(list []budget) (out []placement.Budget) {
	for _, b := range list {
		out = append(out, placement.Budget(b))
	}
	return out
}

// module reads [name, class, parameters, buffers, children].
func module(t *testing.T, data []byte, noSplit []string) *placement.Module {
	m := &placement.Module{}
	var class string
	var children []json.RawMessage
	tensors := func(list *[]placement.Tensor) *tensorList { return &tensorList{list} }
	require.NoError(t, json.Unmarshal(data, &[]any{&m.Name, &class, tensors(&m.Parameters), tensors(&m.Buffers), &children}))
	m.NoSplit = slices.Contains(noSplit, class)
	for _, c := range children {
		m.Children = append(m.Children, module(t, c, noSplit))
	}
	return m
}

type tensorList struct{ list *[]placement.Tensor }

func (l *tensorList) UnmarshalJSON(data []byte) error {
	var raw [][]any
	err := json.Unmarshal(data, &raw)
	for _, t := range raw {
		*l.list = append(*l.list, placement.Tensor{Name: t[0].(string), Bytes: int64(t[1].(float64))})
	}
	return err
}

func read[T any](t *testing.T, file string) (v T) {
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "placement"), file))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &v))
	return v
}

// generated is a model that tools/placeref made.
type generated struct {
	Tree    json.RawMessage   `json:"tree"`
	Ties    map[string]string `json:"ties"`
	NoSplit []string          `json:"no_split"`
	Runs    []recorded        `json:"runs"`
}

// 200 generated models with 7 budgets each, as transformers and accelerate plan them.
func TestMapsArePythons(t *testing.T) {
	models := read[[]generated](t, "generated.json")
	require.Len(t, models, 200)
	equal, several, asAccelerate := requirePythons(t, models)
	require.Greater(t, equal, 3500)
	require.Greater(t, several, 1500)
	require.GreaterOrEqual(t, asAccelerate, 1262)
}

// Models with several tied weights, where it matters which of the modules that hold them is split first.
func TestTiesArePlacedAsPythons(t *testing.T) {
	models := read[[]generated](t, "ties.json")
	require.Len(t, models, 19)
	equal, _, _ := requirePythons(t, models)
	require.Greater(t, equal, 200)
}

// requirePythons compares the maps of all models, and counts those that are equal, those of them that have several
// entries, and the sequential ones that are accelerate's.
func requirePythons(t *testing.T, models []generated) (equal, several, asAccelerate int) {
	crashes := 0
	for n, m := range models {
		root := module(t, m.Tree, m.NoSplit)
		for k, run := range m.Runs {
			check := func(strategy string, want map[string]string, got map[string]string) {
				if want["error"] != "" { // Python can't place some tied parameters; here all have a place
					crashes++
					requireComplete(t, root, got)
					return
				}
				require.Equal(t, want, got, "model %d, budgets %d, %s", n, k, strategy)
				equal++
				if len(want) > 1 {
					several++
				}
			}
			given := budgets(run.MaxMemory)
			got := placement.Map(root, m.Ties, given)
			check("sequential", run.Sequential, got)
			if run.Sequential["error"] == "" && mapsEqual(run.Accelerate, got) {
				asAccelerate++
			}
			for _, s := range []struct {
				name   string
				low    bool
				memory []budget
				want   map[string]string
			}{{"balanced", false, run.BalancedMemory, run.Balanced}, {"balanced_low_0", true, run.BalancedLow0Mem, run.BalancedLow0}} {
				if s.memory == nil {
					continue // its devices are not numbered from 0
				}
				balanced := placement.Balance(root, m.Ties, given, s.low)
				require.Equal(t, budgets(s.memory), balanced, "model %d, budgets %d, %s", n, k, s.name)
				check(s.name, s.want, placement.Map(root, m.Ties, balanced))
			}
		}
	}
	t.Logf("%d maps equal transformers', %d of them on several devices or split; Python failed in %d; %d of the sequential ones equal accelerate's", equal, several, crashes, asAccelerate)
	return equal, several, asAccelerate
}

func mapsEqual(a, b map[string]string) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// requireComplete checks that each parameter has a place.
func requireComplete(t *testing.T, root *placement.Module, placed map[string]string) {
	var visit func(path string, m *placement.Module)
	visit = func(path string, m *placement.Module) {
		for _, p := range m.Parameters {
			require.True(t, covered(path+p.Name, placed), path+p.Name)
		}
		for _, c := range m.Children {
			visit(path+c.Name+".", c)
		}
	}
	visit("", root)
}

func covered(key string, placed map[string]string) bool {
	for name := range placed {
		if name == "" || key == name || strings.HasPrefix(key, name+".") {
			return true
		}
	}
	return false
}

func TestEdges(t *testing.T) {
	leaf := func(name string, bytes int64) *placement.Module {
		return &placement.Module{Name: name, Parameters: []placement.Tensor{{Name: "weight", Bytes: bytes}}}
	}
	root := &placement.Module{Children: []*placement.Module{leaf("a", 10), leaf("b", 20)}}
	require.Equal(t, map[string]string{"": "disk"}, placement.Map(root, nil, nil))
	require.Equal(t, map[string]string{"": "disk"}, placement.Map(root, nil, []placement.Budget{{Device: "disk"}, {Device: "cpu", Bytes: 5}}))
	require.Equal(t, map[string]string{"": "cpu"}, placement.Map(root, nil, []placement.Budget{{Device: "cpu", Bytes: 50}}))
	require.Equal(t, map[string]string{}, placement.Map(&placement.Module{}, nil, []placement.Budget{{Device: "cpu", Bytes: 50}}))
	require.Empty(t, placement.Balance(root, nil, nil, true))
}
