package llama_test

import (
	"testing"

	"github.com/torchgo/torchgo/pretrained/internal/modeltest"
	_ "github.com/torchgo/torchgo/pretrained/models/llama"
)

func TestReferenceCases(t *testing.T) {
	modeltest.RunAll(t, modeltest.Cases(t, "models-llama", 6))
}
