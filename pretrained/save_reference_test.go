package pretrained_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

const attention0 = "bert.encoder.layer.0.attention.self."

// changes are done to a model before it is saved, as in tools/saveref.
var changes = map[string]func(s map[string]nn.Slot){
	"": func(map[string]nn.Slot) {},
	"fused": func(s map[string]nn.Slot) {
		names := []string{attention0 + "query.weight", attention0 + "key.weight", attention0 + "value.weight"}
		var parts []*torch.Tensor
		for _, n := range names {
			parts = append(parts, s[n].Tensor())
		}
		for i, part := range torch.Cat(parts).Chunk(3) {
			s[names[i]].Set(part)
		}
	},
	"view": func(s map[string]nn.Slot) {
		w := s[attention0+"query.weight"]
		n := w.Tensor().Size(0)
		w.Set(torch.Cat([]*torch.Tensor{w.Tensor(), w.Tensor().AddScalar(1), w.Tensor().AddScalar(2)}).Narrow(0, n, n))
	},
	"transposed": func(s map[string]nn.Slot) {
		w := s[attention0+"query.weight"]
		w.Set(w.Tensor().Transpose(0, 1).Contiguous().Transpose(0, 1))
	},
	"shared": func(s map[string]nn.Slot) {
		for _, leaf := range []string{"weight", "bias"} {
			s["bert.encoder.layer.0.output.dense."+leaf].Set(s["bert.encoder.layer.1.output.dense."+leaf].Tensor())
		}
	},
	"overlapping": func(s map[string]nn.Slot) {
		w := s[attention0+"query.weight"].Tensor()
		both := torch.Cat([]*torch.Tensor{w, w})
		s[attention0+"query.weight"].Set(both.Narrow(0, 0, w.Size(0)))
		s[attention0+"key.weight"].Set(both.Narrow(0, 1, w.Size(0)))
	},
	"untied": func(s map[string]nn.Slot) {
		s["cls.predictions.decoder.weight"].Set(s["bert.embeddings.word_embeddings.weight"].Tensor().AddScalar(1))
	},
	"trained": func(s map[string]nn.Slot) {
		seen := map[*torch.Tensor]bool{}
		for _, slot := range s {
			if p := slot.Tensor(); slot.Kind == nn.Parameter && !seen[p] {
				seen[p] = true
				p.SubScalar_(0.5)
			}
		}
	},
	"half": func(s map[string]nn.Slot) {
		half := map[*torch.Tensor]*torch.Tensor{}
		for _, slot := range s {
			p := slot.Tensor()
			if !p.DType().IsFloatingPoint() {
				continue
			}
			if half[p] == nil {
				half[p] = p.ToDType(torch.Float16)
			}
			slot.Set(half[p])
		}
	},
}

// What transformers writes in each situation is what is written here: the same files, byte for byte.
func TestSavesAreTransformers(t *testing.T) {
	var rows []struct {
		Name, From, Class, Change, Error string
		Load                             struct {
			Variant    string
			DType      string
			KeyMapping map[string]string `json:"key_mapping"`
			DeviceMap  json.RawMessage   `json:"device_map"`
		}
		Save struct {
			MaxShardSize       string `json:"max_shard_size"`
			Variant            string
			StateDict          string `json:"state_dict"`
			SaveOriginalFormat *bool  `json:"save_original_format"`
			IsMainProcess      *bool  `json:"is_main_process"`
		}
		Files, Documents map[string]string
	}
	readReference(t, "saves.json", &rows)
	require.Len(t, rows, 38)
	for _, row := range rows {
		t.Run(row.Name, func(t *testing.T) {
			o := pretrained.Options{Class: row.Class, Variant: row.Load.Variant}
			var err error
			if row.Load.DType != "" {
				o.DType, err = torch.ParseDType(row.Load.DType)
				require.NoError(t, err)
			}
			if row.Load.DeviceMap != nil {
				o.DeviceMap, err = pretrained.ParseDeviceMap(string(row.Load.DeviceMap))
				require.NoError(t, err)
			}
			for pattern, replacement := range row.Load.KeyMapping {
				o.KeyMapping = append(o.KeyMapping, pretrained.KeyRule{Pattern: pattern, Replacement: replacement})
			}
			from := loaderCase(t, row.From)
			if strings.HasPrefix(row.From, "llama") {
				from = filepath.Join(testdata.Open(t, "models-llama"), row.From)
			}
			m, _ := load(t, from, o)
			slots := map[string]nn.Slot{}
			for _, s := range nn.Slots(m) {
				slots[s.Name] = s
			}
			torch.NoGrad(func() { changes[row.Change](slots) })

			save := pretrained.SaveOptions{MaxShardSize: row.Save.MaxShardSize, Variant: row.Save.Variant}
			if v := row.Save.SaveOriginalFormat; v != nil {
				save.SaveOriginalFormat = torch.Some(*v)
			}
			if v := row.Save.IsMainProcess; v != nil {
				save.IsMainProcess = torch.Some(*v)
			}
			if row.Save.StateDict == "encoder" {
				save.StateDict = encoderOf(m)
			}
			dir := t.TempDir()
			err = pretrained.SavePretrained(ctx, m, dir, save)
			if row.Error != "" {
				require.ErrorIs(t, err, pretrained.ErrConflict)
				// The groups of names are Python's sets.
				_, list, _ := strings.Cut(row.Error, "shared tensors [")
				list, _, _ = strings.Cut(list, "]")
				for group := range strings.SplitSeq(list, "}, {") {
					found := false
					for _, got := range strings.Split(err.Error(), "], [") {
						same := true
						for name := range strings.SplitSeq(strings.Trim(group, "{}"), ", ") {
							same = same && strings.Contains(got, strings.Trim(name, "'"))
						}
						found = found || same
					}
					require.True(t, found, "%s: %v", group, err)
				}
				require.Empty(t, filesOf(t, dir))
				return
			}
			require.NoError(t, err)
			for name, text := range row.Documents {
				got, err := os.ReadFile(filepath.Join(dir, name))
				require.NoError(t, err)
				require.Equal(t, text, string(got), name)
			}
			require.Equal(t, row.Files, filesOf(t, dir))
			if len(row.Files) == 0 || row.Save.StateDict != "" {
				return
			}
			// So what is in dir is what Python wrote: it loads.
			o.DType, o.Variant, o.Strict = 0, row.Save.Variant, true
			again, _ := load(t, dir, o)
			if m.HFDeviceMap() == nil {
				equalModels(t, m, again)
			} else {
				there, _ := load(t, from, pretrained.Options{Class: row.Class})
				o.DeviceMap = nil
				again, _ = load(t, dir, o)
				equalModels(t, there, again)
			}
		})
	}
}

// encoderOf are the entries of a state dict that are the encoder's.
func encoderOf(m pretrained.Model) iter.Seq2[string, *torch.Tensor] {
	return func(yield func(string, *torch.Tensor) bool) {
		for name, x := range nn.StateDict(m) {
			if strings.Contains(name, ".encoder.") && !yield(name, x) {
				return
			}
		}
	}
}

// filesOf gives the SHA-256 of each file of a folder.
func filesOf(t *testing.T, dir string) map[string]string {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	files := map[string]string{}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		require.NoError(t, err)
		sum := sha256.Sum256(data)
		files[e.Name()] = hex.EncodeToString(sum[:])
	}
	return files
}
