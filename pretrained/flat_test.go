package pretrained_test

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/safetensors"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// flatModel is a model that has whatever parameters its config lists: for tests of loading alone.
type flatModel struct {
	pretrained.PreTrainedModel
	Params any `torch:",inline"`
}

func (m *flatModel) Forward(pretrained.Inputs) *pretrained.Output {
	panic("a flat model computes nothing")
}

type flatConfig struct {
	pretrained.ConfigBase
	Params            any  `json:"params"` // [name, shape] each
	NumAttentionHeads int  `json:"num_attention_heads"`
	Parts             int  `json:"parts"`
	TieWordEmbeddings bool `json:"tie_word_embeddings"`
}

func (c *flatConfig) Validate() error { return nil }

func (m *flatModel) InitParameters(in *pretrained.Init) {
	for _, s := range nn.Slots(m) {
		in.Normal(s.Tensor())
	}
}

func newFlat(b nn.Builder, c *flatConfig) *flatModel {
	var fields []reflect.StructField
	var tensors []*torch.Tensor
	list, _ := c.Params.([]any)
	for i, p := range list {
		name, shape := p.([]any)[0].(string), p.([]any)[1].([]any)
		fields = append(fields, reflect.StructField{Name: fmt.Sprintf("P%d", i), Type: reflect.TypeFor[*torch.Tensor](),
			Tag: reflect.StructTag(fmt.Sprintf("torch:%q", name))})
		dims := make([]int, len(shape))
		for k, n := range shape {
			dims[k] = int(reflect.ValueOf(n).Convert(reflect.TypeFor[int64]()).Int())
		}
		tensors = append(tensors, b.Parameter(dims...))
	}
	v := reflect.New(reflect.StructOf(fields))
	for i, t := range tensors {
		v.Elem().Field(i).Set(reflect.ValueOf(t))
	}
	return &flatModel{Params: v.Interface()}
}

// flatConfigMade is called when a load has found config.json and the weights, and has not opened these yet.
var flatConfigMade = func() {}

// registerFlat adds a model type with one class, whose rules are given.
func registerFlat(name string, a pretrained.Architecture) {
	a.ModelType = name
	a.NewConfig = func() pretrained.Config {
		flatConfigMade()
		return &flatConfig{ConfigBase: pretrained.ConfigBase{ModelType: name}, NumAttentionHeads: 2, Parts: 3}
	}
	class := pretrained.Class{}
	if len(a.Classes) > 0 {
		class = a.Classes[0]
	}
	class.Name, class.New = name, pretrained.Build(newFlat)
	a.Classes = []pretrained.Class{class}
	pretrained.Register(a)
}

// param is an entry of a flat model's list.
func param(name string, shape []int) any {
	dims := []any{}
	for _, n := range shape {
		dims = append(dims, n)
	}
	return []any{name, dims}
}

// writeCheckpoint writes a model.safetensors and a config.json into a new folder.
func writeCheckpoint(t *testing.T, config string, sources []safetensors.Source) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, safetensors.WriteFile(ctx, filepath.Join(dir, "model.safetensors"), sources, map[string]string{"format": "pt"}))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600))
	return dir
}
