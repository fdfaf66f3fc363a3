package peft

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/torchgo/torchgo/internal/testdata"
)

// TestExpressionsAreThoseOfPython: an expression matches what it matches in Python, or is refused. What Python refuses
// is ErrBadConfig; what it knows and RE2 lacks is ErrUnsupported.
func TestExpressionsAreThoseOfPython(t *testing.T) {
	var doc struct {
		Names []string
		Rows  []struct {
			Pattern string
			Matches []string
			Error   string
		}
	}
	data, err := os.ReadFile(filepath.Join(testdata.Open(t, "peft"), "expressions.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &doc))
	require.Len(t, doc.Rows, 148)
	unsupported := 0
	for _, row := range doc.Rows {
		re, err := fullMatch(row.Pattern)
		switch {
		case row.Error != "":
			if err == nil && row.Pattern != "(?i-i:a)" { // in Go the flag is off
				t.Errorf("%s: taken, Python says %s", row.Pattern, row.Error)
			}
		case errors.Is(err, ErrUnsupported):
			unsupported++
			t.Log(err)
		case err != nil:
			t.Errorf("%s: %v", row.Pattern, err)
		default:
			matches := []string{}
			for _, name := range doc.Names {
				if re.MatchString(name) {
					matches = append(matches, name)
				}
			}
			if !assertEqual(row.Matches, matches) {
				t.Errorf("%s matches %q, in Python %q", row.Pattern, matches, row.Matches)
			}
		}
	}
	require.Less(t, unsupported, 30)
}

func assertEqual(a, b []string) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}
