package pretrained_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
	"github.com/torchgo/torchgo/pretrained"
	_ "github.com/torchgo/torchgo/pretrained/models"
	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

var ctx = context.Background()

// loaderReport is what transformers did with a loader case.
type loaderReport struct {
	Class      string            `json:"load_class"`
	DType      string            `json:"dtype"`
	DTypes     []string          `json:"dtypes"`
	Missing    []string          `json:"missing_keys"`
	Unexpected []string          `json:"unexpected_keys"`
	Mismatched json.RawMessage   `json:"mismatched_keys"`
	ErrorMsgs  []string          `json:"error_msgs"`
	State      map[string]string `json:"sha256_state"`
	Training   bool              `json:"training"`
	Log        [][2]string       `json:"log"` // level, text
	Exception  *struct{ Type, Message string }
}

// loaderCases are the safetensors cases with their arguments; err is the class of error, refused marks
// those that transformers loads and torchgo does not, on purpose.
var loaderCases = map[string]struct {
	opts    pretrained.Options
	err     error
	refused bool
}{
	"single":                     {},
	"sharded":                    {},
	"variant":                    {opts: pretrained.Options{Variant: "fp16"}},
	"subfolder":                  {opts: pretrained.Options{Subfolder: "sub"}},
	"bin-use-safetensors-true":   {opts: pretrained.Options{UseSafetensors: torch.Some(true)}, err: pretrained.ErrMissingShard},
	"no-weights":                 {err: pretrained.ErrMissingShard},
	"no-config":                  {err: pretrained.ErrBadConfig, refused: true},
	"gamma-beta":                 {},
	"base-into-head":             {},
	"head-into-base":             {},
	"mismatch-raise":             {opts: pretrained.Options{Config: map[string]any{"vocab_size": 40}}, err: pretrained.ErrSizeMismatch},
	"mismatch-ignore":            {opts: pretrained.Options{Config: map[string]any{"vocab_size": 40}, IgnoreMismatchedSizes: true}},
	"num-labels-mismatch":        {opts: pretrained.Options{Config: map[string]any{"num_labels": 5}, IgnoreMismatchedSizes: true}},
	"missing-and-unexpected":     {},
	"no-format-metadata":         {},
	"key-mapping":                {opts: pretrained.Options{KeyMapping: []pretrained.KeyRule{{Pattern: `^zz\.`}}}},
	"fp16-auto":                  {},
	"fp16-to-fp32":               {opts: pretrained.Options{DType: torch.Float32}},
	"bf16-noconfigdtype":         {},
	"dtype-int-error":            {opts: pretrained.Options{DType: torch.Int64}, err: pretrained.ErrArgument},
	"truncated":                  {err: pretrained.ErrTruncated},
	"shard-missing":              {err: pretrained.ErrMissingShard},
	"index-key-missing-in-shard": {err: pretrained.ErrMissingTensor, refused: true},
	"tied-both-present-differ":   {},
	"tied-only-head-present":     {},
	"bin-zip":                    {},
	"bin-legacy":                 {},
	"bin-sharded":                {},
	"bin-malicious":              {err: pretrained.ErrForbiddenGlobal},
}

func TestLoaderCases(t *testing.T) {
	base := testdata.Open(t, "loader")
	entries, err := os.ReadDir(base)
	require.NoError(t, err)
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		name, dir := e.Name(), filepath.Join(base, e.Name())
		t.Run(name, func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join(dir, "report.json"))
			require.NoError(t, err)
			var want loaderReport
			require.NoError(t, json.Unmarshal(data, &want))
			if name == "dtype-bad-str" { // the name never becomes a torch.DType
				_, err := torch.ParseDType("flot32")
				require.ErrorContains(t, err, `"flot32"`)
				return
			}
			c, known := loaderCases[name]
			require.True(t, known, "a case without a test")
			for _, disable := range []bool{false, true} {
				opts := c.opts
				opts.Class, opts.DisableMmap = want.Class, disable
				checkLoaderCase(t, dir, want, opts, c.err, c.refused)
			}
		})
	}
}

func checkLoaderCase(t *testing.T, dir string, want loaderReport, opts pretrained.Options, wantErr error, refused bool) {
	m, r, err := pretrained.Load(ctx, dir, opts)
	if wantErr != nil {
		require.ErrorIs(t, err, wantErr)
		require.Equal(t, refused, want.Exception == nil)
		return
	}
	require.NoError(t, err)
	defer m.Close()
	require.Nil(t, want.Exception)
	require.Equal(t, want.Class, r.Class)
	require.Equal(t, want.DType, r.DType)
	require.Equal(t, want.DType, m.DType().String())
	require.ElementsMatch(t, want.Missing, r.MissingKeys)
	require.ElementsMatch(t, want.Unexpected, r.UnexpectedKeys)
	require.ElementsMatch(t, want.ErrorMsgs, r.ErrorMsgs)
	require.Equal(t, want.Training, m.Training())
	checkLog(t, want.Log, r)
	var parsed struct {
		Mismatched json.RawMessage `json:"mismatched_keys"`
		Missing    []string        `json:"missing_keys"`
	}
	require.NoError(t, json.Unmarshal(r.JSON(), &parsed))
	require.JSONEq(t, string(want.Mismatched), string(parsed.Mismatched))
	require.NotNil(t, parsed.Missing, "an empty list is [] in JSON")

	dtypes := map[string]bool{}
	for _, p := range nn.NamedParameters(m) {
		dtypes[p.DType().String()] = true
	}
	require.Len(t, dtypes, len(want.DTypes))
	for _, d := range want.DTypes {
		require.True(t, dtypes[d])
	}
	got := map[string]string{}
	for name, x := range nn.StateDict(m) {
		sum := sha256.Sum256(x.Bytes())
		got[name] = hex.EncodeToString(sum[:8])
	}
	for name, sum := range want.State {
		require.Equal(t, sum, got[name], name)
	}
	for name := range got {
		if want.State[name] == "" { // initialised: random, but finite and of the right spread
			require.Contains(t, slices.Concat(want.Missing, keysOf(r.MismatchedKeys)), name)
		}
	}
}

func keysOf(ms []pretrained.Mismatch) (keys []string) {
	for _, m := range ms {
		keys = append(keys, m.Key)
	}
	// A tied target of a mismatched source takes its value, and is mismatched in Python's report only
	// under the source's name.
	if slices.Contains(keys, "cls.predictions.bias") {
		keys = append(keys, "cls.predictions.decoder.bias", "cls.predictions.decoder.weight")
	}
	return keys
}

// checkLog compares what transformers logged: the rows of its report by status, and its warnings about ties, by
// the keys that they name.
func checkLog(t *testing.T, log [][2]string, r *pretrained.Report) {
	t.Helper()
	rows := map[string][]string{}
	warnings := 0
	for _, entry := range log {
		text := entry[1]
		if !strings.Contains(text, "LOAD REPORT") {
			warnings++
			keys := tiedKeys.FindStringSubmatch(text)
			require.NotNil(t, keys, text)
			require.True(t, slices.ContainsFunc(r.Warnings, func(w string) bool {
				return strings.Contains(w, keys[1]) && strings.Contains(w, keys[2]) &&
					strings.Contains(text, "NOT tie") == strings.Contains(w, "not tied")
			}), text)
			continue
		}
		for line := range strings.Lines(text) {
			if cells := strings.Split(line, "|"); len(cells) > 2 && !strings.HasPrefix(line, "Key ") {
				status := strings.TrimSpace(cells[1])
				rows[status] = append(rows[status], unfold(strings.TrimSpace(cells[0]))...)
			}
		}
	}
	require.Len(t, r.Warnings, warnings)
	require.ElementsMatch(t, rows["MISSING"], r.MissingKeys)
	require.ElementsMatch(t, rows["UNEXPECTED"], r.UnexpectedKeys)
	var mismatched []string
	for _, m := range r.MismatchedKeys {
		mismatched = append(mismatched, m.Key)
	}
	require.ElementsMatch(t, rows["MISMATCH"], mismatched)
	require.Empty(t, rows["CONVERSION"])
}

var tiedKeys = regexp.MustCompile(`specifies to tie (\S+) to (\S+?),? `)

// unfold writes a.{0, 1}.b as two keys.
func unfold(key string) (keys []string) {
	before, rest, folded := strings.Cut(key, "{")
	if !folded {
		return []string{key}
	}
	indices, after, _ := strings.Cut(rest, "}")
	list := strings.Split(indices, ", ")
	if from, to, ok := strings.Cut(indices, "..."); ok { // more than ten
		list = nil
		first, _ := strconv.Atoi(from)
		last, _ := strconv.Atoi(to)
		for i := first; i <= last; i++ {
			list = append(list, strconv.Itoa(i))
		}
	}
	for _, index := range list {
		for _, rest := range unfold(after) {
			keys = append(keys, before+index+rest)
		}
	}
	return keys
}
