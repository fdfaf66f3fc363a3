package atomicfile

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestFolderKeepsWhatIsNamed: what another save left goes, unless a JSON file says that it is in use.
func TestFolderKeepsWhatIsNamed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		".save-00000000000000aa-x": "", ".save-00000000000000aa-y": "", ".save-00000000000000bb-x": "", ".save-0-x": "", ".saved": "",
		"config.json": `{"transformers_weights": ".save-00000000000000aa-x"}`,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
	d, err := OpenFolder(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, []string{".save-0-x", ".save-00000000000000aa-x", ".save-00000000000000aa-y", ".saved", "config.json"}, names(t, dir))
	require.NoError(t, d.WriteFile("config.json", "config.json", []byte("{}")))
	require.Len(t, names(t, dir), 6)
	require.NoError(t, d.Rename("config.json", "config.json"))
	require.NoError(t, d.Rename("config.json", "config.json"), "again")
	d.Done()
	require.NoError(t, d.Close())
	require.Equal(t, []string{".save-0-x", ".saved", "config.json"}, names(t, dir))
	require.Equal(t, "{}", content(t, filepath.Join(dir, "config.json")))
}

func TestFolderIsForOne(t *testing.T) {
	if dir := os.Getenv("TORCHGO_TEST_FOLDER"); dir != "" { // another process
		if _, err := OpenFolder(t.Context(), dir); err == nil {
			_, _ = os.Stdout.WriteString("locked\n")
			time.Sleep(time.Minute)
		}
		return
	}
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	require.NoError(t, os.Symlink(dir, link))
	d, err := OpenFolder(t.Context(), dir)
	require.NoError(t, err)
	for _, path := range []string{dir, link} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err = OpenFolder(ctx, path)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		cancel()
	}
	require.NoError(t, d.Close())
	_, err = OpenFolder(t.Context(), filepath.Join(dir, "no"))
	require.ErrorIs(t, err, os.ErrNotExist)

	if _, alone := lockDir(dir); !alone {
		t.Skip("no locks between processes here")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFolderIsForOne$")
	cmd.Env = append(os.Environ(), "TORCHGO_TEST_FOLDER="+t.TempDir())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "locked\n", line)
	other := cmd.Env[len(cmd.Env)-1][len("TORCHGO_TEST_FOLDER="):]
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = OpenFolder(ctx, other)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.NoError(t, cmd.Process.Kill()) // takes its lock along
	require.Error(t, cmd.Wait())
	d, err = OpenFolder(t.Context(), other)
	require.NoError(t, err)
	require.NoError(t, d.Close())
}
