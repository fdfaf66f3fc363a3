package pickle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/torchgo/torchgo/internal/fileerr"
	"github.com/torchgo/torchgo/internal/testdata"
)

func TestAdhoc(t *testing.T) {
	data, _ := os.ReadFile("/work/shared/refs/hostile/manifest.json")
	var m struct{ Cases []testdata.HostileCase }
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	for _, c := range m.Cases {
		if !strings.HasPrefix(c.Format, "torch_") {
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			start := time.Now()
			f, err := Open("/tmp/hc/" + c.File)
			got := map[string]testdata.HostileTensor{}
			if err == nil {
				for _, ti := range f.Tensors() {
					buf := make([]byte, ti.Bytes)
					if err = f.ReadTensor(ti.Name, buf); err != nil {
						break
					}
					s := sha256.Sum256(buf)
					got[ti.Name] = testdata.HostileTensor{ti.DType.String(), ti.Shape, hex.EncodeToString(s[:16])}
				}
			}
			if d := time.Since(start); d > 500*time.Millisecond {
				t.Errorf("slow %v", d)
			}
			switch {
			case c.Expected == "error" && err == nil:
				t.Errorf("ACCEPTED %s %s (%s)", c.Wrong, c.ErrorClass, c.Strictness)
			case c.Expected == "error":
				if !errors.Is(err, fileerr.Class(c.ErrorClass)) {
					t.Errorf("CLASS want %s, %s: got %v", c.ErrorClass, c.Wrong, err)
				} else {
					t.Logf("%s | %v", c.Wrong, err)
				}
			case err != nil && c.Alt != "" && errors.Is(err, fileerr.Class(c.Alt)):
				t.Logf("alt %v", err)
			case err != nil:
				t.Errorf("REFUSED %v", err)
			default:
				if len(got) != len(c.Tensors) {
					t.Errorf("%d tensors, want %d: %v", len(got), len(c.Tensors), got)
				}
				for n, w := range c.Tensors {
					g, ok := got[strings.ReplaceAll(n, "/", ".")]
					if !ok {
						g, ok = got[n]
					}
					if !ok || g.DType != w.DType || g.SHA256 != w.SHA256 || len(g.Shape) != len(w.Shape) {
						t.Errorf("%s: got %v want %v", n, g, w)
					}
				}
			}
		})
	}
}
