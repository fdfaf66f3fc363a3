package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained/hub"
	"golang.org/x/term"
)

func init() { cli.Register(newCache) }

func newCache(app *cli.App) *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look at, check and tidy up the hub's cache",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cli.Usagef("expected ls, info, verify, rm or prune")
		},
	}
	cmd.PersistentFlags().StringVar(&dir, "cache-dir", "", "the cache (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)")
	scan := func() (*hub.CacheInfo, error) {
		where, err := cacheDir(dir)
		if err != nil {
			return nil, err
		}
		return hub.Scan(where)
	}
	cmd.AddCommand(newCacheList(app, scan), newCacheInfo(app, scan), newCacheVerify(app, &dir), newCacheRemove(app, scan), newCachePrune(app, scan))
	return cmd
}

func cacheDir(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	return hub.CacheDir()
}

// cacheRow is a repository or revision under --json.
type cacheRow struct {
	ID           string   `json:"id"`
	RepoID       string   `json:"repo_id"`
	RepoType     hub.Type `json:"repo_type"`
	Revision     string   `json:"revision,omitempty"`
	Path         string   `json:"path"`
	Size         string   `json:"size"`
	SizeOnDisk   int64    `json:"size_on_disk"`
	LastAccessed string   `json:"last_accessed,omitempty"`
	LastModified string   `json:"last_modified"`
	Refs         []string `json:"refs"`
	Files        []string `json:"files,omitempty"`
}

func repoRow(r hub.CachedRepo) cacheRow {
	row := cacheRow{ID: cacheID(r), RepoID: r.ID, RepoType: r.Type, Path: r.Path, Size: sizeText(r.Size), SizeOnDisk: r.Size,
		LastModified: r.Modified.UTC().Format(time.RFC3339), Refs: append([]string{}, r.Refs()...)}
	if !r.Accessed.IsZero() {
		row.LastAccessed = r.Accessed.UTC().Format(time.RFC3339)
	}
	return row
}

func revisionRow(r hub.CachedRepo, v hub.CachedRevision) cacheRow {
	return cacheRow{ID: cacheID(r), RepoID: r.ID, RepoType: r.Type, Revision: v.Commit, Path: v.Path, Size: sizeText(v.Size), SizeOnDisk: v.Size,
		LastModified: v.Modified.UTC().Format(time.RFC3339), Refs: append([]string{}, v.Refs...)}
}

func cacheID(r hub.CachedRepo) string { return string(r.Type) + "/" + r.ID }

func newCacheList(app *cli.App, scan func() (*hub.CacheInfo, error)) *cobra.Command {
	var revisions bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the repositories in the cache, or their revisions",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, err := scan()
			if err != nil {
				return err
			}
			rows := []cacheRow{}
			table := [][]string{{"ID", "SIZE", "LAST_ACCESSED", "LAST_MODIFIED", "REFS"}}
			if revisions {
				table = [][]string{{"ID", "REVISION", "SIZE", "LAST_MODIFIED", "REFS"}}
			}
			count := 0
			for _, r := range info.Repos {
				count += len(r.Revisions)
				if !revisions {
					row := repoRow(r)
					rows = append(rows, row)
					table = append(table, []string{row.ID, row.Size, sinceText(r.Accessed), sinceText(r.Modified), strings.Join(row.Refs, " ")})
					continue
				}
				for _, v := range r.Revisions {
					row := revisionRow(r, v)
					rows = append(rows, row)
					table = append(table, []string{row.ID, v.Commit, row.Size, sinceText(v.Modified), strings.Join(row.Refs, " ")})
				}
			}
			if app.JSON {
				return app.PrintJSON(rows)
			}
			if err := printTable(app, table); err != nil {
				return err
			}
			_, err = fmt.Fprintf(app.Stdout, "\nFound %d repo(s) for a total of %d revision(s) and %s on disk.\n", len(info.Repos), count, sizeText(info.Size))
			return err
		},
	}
	cmd.Flags().BoolVar(&revisions, "revisions", false, "a line for each revision")
	return cmd
}

func newCacheInfo(app *cli.App, scan func() (*hub.CacheInfo, error)) *cobra.Command {
	return &cobra.Command{
		Use:   "info [ID]",
		Short: "Where the cache is and how large; or the revisions and files of a repository",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := scan()
			if err != nil {
				return err
			}
			if len(args) == 1 {
				return cacheRepoInfo(app, info, args[0])
			}
			partial := int64(0)
			for _, l := range info.Incomplete {
				partial += l.Size
			}
			if app.JSON {
				return app.PrintJSON(struct {
					Path            string   `json:"cache_dir"`
					Repos           int      `json:"repos"`
					SizeOnDisk      int64    `json:"size_on_disk"`
					Incomplete      int      `json:"incomplete"`
					IncompleteBytes int64    `json:"incomplete_bytes"`
					Warnings        []string `json:"warnings"`
				}{info.Dir, len(info.Repos), info.Size, len(info.Incomplete), partial, append([]string{}, info.Warnings...)})
			}
			if _, err := fmt.Fprintf(app.Stdout, "cache: %s\nrepositories: %d\nsize: %s\nincomplete downloads: %d files, %s\n", info.Dir, len(info.Repos), sizeText(info.Size), len(info.Incomplete), sizeText(partial)); err != nil {
				return err
			}
			for _, w := range info.Warnings {
				if _, err := fmt.Fprintf(app.Stdout, "note: %s\n", cli.OneLine(w)); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func cacheRepoInfo(app *cli.App, info *hub.CacheInfo, target string) error {
	repos, err := findTargets(info, []string{target})
	if err != nil {
		return err
	}
	rows := []cacheRow{}
	for _, r := range info.Repos {
		if _, ok := repos[filepath.Base(r.Path)]; !ok {
			continue
		}
		for _, v := range r.Revisions {
			if only := repos[filepath.Base(r.Path)]; len(only) > 0 && !slices.Contains(only, v.Commit) {
				continue
			}
			row := revisionRow(r, v)
			for _, f := range v.Files {
				row.Files = append(row.Files, f.Name)
			}
			rows = append(rows, row)
			if app.JSON {
				continue
			}
			if _, err := fmt.Fprintf(app.Stdout, "%s %s %s [%s]\n", row.ID, v.Commit, row.Size, strings.Join(v.Refs, " ")); err != nil {
				return err
			}
			table := [][]string{}
			for _, f := range v.Files {
				table = append(table, []string{"  " + f.Name, sizeText(f.Size)})
			}
			if err := printTable(app, table); err != nil {
				return err
			}
		}
	}
	if app.JSON {
		return app.PrintJSON(rows)
	}
	return nil
}

func newCacheVerify(app *cli.App, dir *string) *cobra.Command {
	var revision, repoType string
	cmd := &cobra.Command{
		Use:   "verify ID…",
		Short: "Compare files in the cache with their hashes; needs no network",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			where, err := cacheDir(*dir)
			if err != nil {
				return err
			}
			results := []*hub.Verification{}
			bad := 0
			for _, id := range args {
				v, err := hub.Verify(cmd.Context(), where, hub.Repo{ID: id, Type: hub.Type(repoType), Revision: revision})
				if err != nil {
					return err
				}
				results = append(results, v)
				bad += len(v.Bad)
			}
			if app.JSON {
				err = app.PrintJSON(verified(results))
			} else {
				err = printVerified(app, results)
			}
			if err == nil && bad > 0 {
				err = fmt.Errorf("%d file(s) are damaged: expected other content; download them again with --force-download", bad)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&revision, "revision", "", "the revision (default: main)")
	cmd.Flags().StringVar(&repoType, "repo-type", "model", "model, dataset or space")
	return cmd
}

type badFile struct {
	Path     string `json:"path"`
	Expected string `json:"expected"`
	Actual   string `json:"actual"`
}

type verifiedRow struct {
	RepoID     string    `json:"repo_id"`
	RepoType   hub.Type  `json:"repo_type"`
	Commit     string    `json:"commit"`
	Checked    int       `json:"checked"`
	Mismatches []badFile `json:"mismatches"`
	Missing    []string  `json:"missing"`
	Unknown    []string  `json:"unknown"`
}

func verified(results []*hub.Verification) []verifiedRow {
	rows := []verifiedRow{}
	for _, v := range results {
		row := verifiedRow{v.Repo, v.Type, v.Commit, v.Checked, []badFile{}, v.Missing, v.Unknown}
		for _, b := range v.Bad {
			row.Mismatches = append(row.Mismatches, badFile{b.Name, b.Expected, b.Actual})
		}
		rows = append(rows, row)
	}
	return rows
}

func printVerified(app *cli.App, results []*hub.Verification) error {
	for _, v := range results {
		if _, err := fmt.Fprintf(app.Stdout, "%s/%s %s: %d file(s) checked, %d damaged, %d missing, %d without a hash\n", v.Type, v.Repo, v.Commit, v.Checked, len(v.Bad), len(v.Missing), len(v.Unknown)); err != nil {
			return err
		}
		for _, b := range v.Bad {
			if _, err := fmt.Fprintf(app.Stdout, "  %s: expected %s, got %s\n", cli.OneLine(b.Name), b.Expected, b.Actual); err != nil {
				return err
			}
		}
		for _, m := range v.Missing {
			if _, err := fmt.Fprintf(app.Stdout, "  %s: missing\n", cli.OneLine(m)); err != nil {
				return err
			}
		}
	}
	return nil
}

func newCacheRemove(app *cli.App, scan func() (*hub.CacheInfo, error)) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "rm TARGET…",
		Short: "Remove repositories (model/org/name, org/name) or revisions (commit hashes) from the cache",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := scan()
			if err != nil {
				return err
			}
			repos, err := findTargets(info, args)
			if err != nil {
				return err
			}
			return remove(app, info.Remove(repos), yes, dryRun)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	return cmd
}

func newCachePrune(app *cli.App, scan func() (*hub.CacheInfo, error)) *cobra.Command {
	var yes, dryRun bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove revisions that no branch or tag is at any more, and leftovers of downloads",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			info, err := scan()
			if err != nil {
				return err
			}
			return remove(app, info.Prune(), yes, dryRun)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "don't ask")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be removed, and remove nothing")
	return cmd
}

// findTargets gives the repositories' folders, and the commits of them; none: all.
func findTargets(info *hub.CacheInfo, targets []string) (map[string][]string, error) {
	repos := map[string][]string{}
	for _, target := range targets {
		found := false
		for _, r := range info.Repos {
			name := filepath.Base(r.Path)
			if strings.EqualFold(target, cacheID(r)) || r.Type == hub.Model && strings.EqualFold(target, r.ID) {
				repos[name], found = nil, true
			}
			for _, v := range r.Revisions {
				if !strings.EqualFold(target, v.Commit) {
					continue
				}
				found = true
				if commits, ok := repos[name]; !ok || commits != nil {
					repos[name] = append(commits, v.Commit)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("%.100q: not in the cache %s", target, info.Dir)
		}
	}
	return repos, nil
}

// remove shows what a removal will do, asks, and does it.
func remove(app *cli.App, d *hub.Removal, yes, dryRun bool) error {
	out := struct {
		DryRun     bool  `json:"dry_run"`
		Repos      int   `json:"repos"`
		Revisions  int   `json:"revisions"`
		Incomplete int   `json:"incomplete"`
		Bytes      int64 `json:"bytes"`
	}{dryRun, d.Repos, d.Revisions, d.Files, d.Bytes}
	what := fmt.Sprintf("%d repo(s), %d revision(s), %d incomplete file(s), %s", d.Repos, d.Revisions, d.Files, sizeText(d.Bytes))
	empty := d.Repos+d.Revisions+d.Files == 0
	if !dryRun && !empty {
		if !yes {
			if err := confirm(app, "About to remove "+what+". Proceed? [y/N] "); err != nil {
				return err
			}
		}
		if err := d.Do(); err != nil {
			return err
		}
	}
	if app.JSON {
		return app.PrintJSON(out)
	}
	text := "Removed " + what + "."
	switch {
	case empty:
		text = "Nothing to remove."
	case dryRun:
		text = "Would remove " + what + "."
	}
	_, err := fmt.Fprintln(app.Stdout, text)
	return err
}

// confirm asks at a terminal. Elsewhere the answer has to be on standard input, or the flag given.
func confirm(app *cli.App, question string) error {
	if f, ok := app.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		if _, err := io.WriteString(app.Stderr, question); err != nil {
			return err
		}
	}
	line, err := bufio.NewReader(app.Stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return nil
	}
	return fmt.Errorf("not confirmed: expected y, got %.20q; --yes goes without asking", strings.TrimSpace(line))
}

func printTable(app *cli.App, rows [][]string) error {
	t := tabwriter.NewWriter(app.Stdout, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = cli.OneLine(row[i])
		}
		if _, err := fmt.Fprintln(t, strings.TrimRight(strings.Join(row, "\t"), "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

// sizeText is a number of bytes in three digits and a letter.
func sizeText(n int64) string {
	x := float64(n)
	for _, unit := range []string{"", "K", "M", "G", "T", "P"} {
		if x < 1000 {
			return fmt.Sprintf("%.1f%s", x, unit)
		}
		x /= 1000
	}
	return fmt.Sprintf("%.1fE", x)
}

// sinceText is how long ago a time is.
func sinceText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := time.Since(t).Round(0)
	if d < 20*time.Second {
		return "a few seconds ago"
	}
	for _, u := range []struct {
		name string
		unit time.Duration
		most int64
	}{{"second", time.Second, 59}, {"minute", time.Minute, 59}, {"hour", time.Hour, 23}, {"day", 24 * time.Hour, 6}, {"week", 7 * 24 * time.Hour, 6}, {"month", 30 * 24 * time.Hour, 11}} {
		if n := int64(d.Round(u.unit) / u.unit); n <= u.most {
			return countAgo(n, u.name)
		}
	}
	return countAgo(int64(d.Round(365*24*time.Hour)/(365*24*time.Hour)), "year")
}

func countAgo(n int64, unit string) string {
	if n == 1 {
		return "1 " + unit + " ago"
	}
	return fmt.Sprintf("%d %ss ago", n, unit)
}
