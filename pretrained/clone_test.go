package pretrained_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// A copy of a model is a model: it shares neither weights nor config with the original, and survives it.
func TestClonesOfModels(t *testing.T) {
	for name, dir := range languageModels(t) {
		m, _ := load(t, dir, pretrained.Options{DType: torch.Float32})
		for _, tag := range []string{"a", "b", "c"} { // with room for a fourth
			m.AddModelTags(tag)
		}
		rows, _ := m.InputEmbeddings().Weight.Rows()
		config, err := pretrained.NewConfig(m.Config().Base().ModelType, nil)
		require.NoError(t, err)
		require.IsType(t, config, m.Config())
		c := nn.Clone(m)
		defer c.Close()
		require.NotSame(t, m.Config(), c.Config())
		require.Same(t, c.Config(), c.BaseModel().Config())
		require.NotSame(t, m.BaseModel(), c.BaseModel())
		require.Equal(t, m.Class(), c.Class())
		require.Equal(t, m.BaseModel().Class(), c.BaseModel().Class())
		require.Equal(t, m.MemoryFootprint(), c.MemoryFootprint())

		_, err = c.ResizeTokenEmbeddings(rows + 2)
		require.NoError(t, err)
		c.AddModelTags("of the copy")
		m.AddModelTags("of the original")
		require.Equal(t, []string{"a", "b", "c", "of the copy"}, c.ModelTags())
		require.Equal(t, []string{"a", "b", "c", "of the original"}, m.ModelTags())
		require.NoError(t, c.Double())
		require.Equal(t, torch.Float32, m.DType())
		c.Train()
		require.False(t, m.Training())
		first, _ := step(m, batch())
		to := t.TempDir()
		require.NoError(t, pretrained.SavePretrained(ctx, m, filepath.Join(to, "original"), pretrained.SaveOptions{}))
		again, _ := load(t, filepath.Join(to, "original"), pretrained.Options{Strict: true})
		equalModels(t, m, again)

		// Which attention runs is read from the config while it runs.
		c.Eval()
		require.NoError(t, c.Float())
		in := batch()
		in.OutputAttentions = true
		c.Config().Base().Attn = nn.Eager
		require.NotEmpty(t, c.Forward(in).Attentions, name)
		require.Empty(t, m.Forward(in).Attentions, name)
		m.Close()
		_, err = c.ResizeTokenEmbeddings(rows)
		require.NoError(t, err)
		second, _ := step(c, batch())
		require.InDelta(t, first, second, 1e-5, name)
		require.NoError(t, pretrained.SavePretrained(ctx, c, filepath.Join(to, "copy"), pretrained.SaveOptions{}))
		again, _ = load(t, filepath.Join(to, "copy"), pretrained.Options{Strict: true})
		equalModels(t, c, again)
	}
}
