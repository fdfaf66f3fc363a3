package testdata

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// HostileCase is a row of the manifest of hostile checkpoints (group "hostile").
type HostileCase struct {
	ID         string `json:"id"`
	File       string `json:"file"` // relative to the folder; use Path
	Path       string `json:"-"`
	Format     string `json:"format"` // "safetensors", "torch_zip", "torch_legacy", "torch_tar", "gguf", "hf_dir" or "peft"
	Wrong      string `json:"wrong"`
	Expected   string `json:"expected"`     // "error" or "ok"
	ErrorClass string `json:"error_class"`  // for fileerr.Class
	Strictness string `json:"strictness"`   // "must" or "should"
	Alt        string `json:"alt_expected"` // this class of refusal is fine, too
	Special    []struct {
		Path   string `json:"path"`
		Kind   string `json:"kind"` // "symlink" or "dir"
		Target string `json:"target"`
	} `json:"special_files"`
	Tensors map[string]HostileTensor `json:"tensors"`
}

// HostileTensor is what a tensor of a valid case must be. In JSON: [dtype, shape, digest].
type HostileTensor struct {
	DType  string
	Shape  []int
	SHA256 string // first 32 hexadecimal digits, of the contiguous little-endian bytes
}

// MarshalJSON writes [dtype, shape, digest].
func (h HostileTensor) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{h.DType, h.Shape, h.SHA256})
}

// UnmarshalJSON reads [dtype, shape, digest].
func (h *HostileTensor) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&h.DType, &h.Shape, &h.SHA256})
}

// Hostile unpacks the hostile checkpoints of a format into a folder of the test's own and makes their
// links and special files.
func Hostile(t testing.TB, format string) []HostileCase {
	t.Helper()
	dir := Copy(t, "hostile")
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct{ Cases []HostileCase }
	if err := json.Unmarshal(data, &manifest); err != nil {
		t.Fatal(err)
	}
	var cases []HostileCase
	for _, c := range manifest.Cases {
		if c.Format != format {
			continue
		}
		c.Path = filepath.Join(dir, filepath.FromSlash(c.File))
		for _, s := range c.Special {
			path := filepath.Join(dir, filepath.FromSlash(s.Path))
			switch s.Kind {
			case "symlink":
				err = os.Symlink(s.Target, path)
			case "dir":
				err = os.Mkdir(path, 0o755)
			default:
				t.Fatalf("testdata: %s: unknown kind of special file %q", c.ID, s.Kind)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		cases = append(cases, c)
	}
	return cases
}
