package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained/hub"
)

func init() { cli.Register(newDownload) }

// downloaded is what download prints under --json.
type downloaded struct {
	Path     string         `json:"path"`
	RepoID   string         `json:"repo_id"`
	RepoType hub.Type       `json:"repo_type"`
	Revision string         `json:"revision"`
	Commit   string         `json:"commit"`
	DryRun   bool           `json:"dry_run,omitempty"`
	Files    []downloadFile `json:"files"`
}

type downloadFile struct {
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	Download bool   `json:"will_download,omitempty"`
}

func newDownload(app *cli.App) *cobra.Command {
	var include, exclude []string
	var localDir, repoType string
	var quiet, dryRun bool
	var workers int
	var flags *hubFlags
	cmd := &cobra.Command{
		Use:   "download ID [FILE…]",
		Short: "Download a repository of the hub, or some of its files, and print where they are",
		Long: `Download a repository of the hub to the cache, which Python's huggingface_hub shares, and print the folder
of the snapshot; of one FILE its path. A FILE that ends with / is all that is below. What the cache has is not
downloaded again. Ctrl-C is safe: the next run goes on where this one stopped.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r := hub.Repo{ID: args[0], Type: hub.Type(repoType), Revision: flags.revision}
			names := args[1:]
			switch {
			case localDir != "" && cmd.Flags().Changed("cache-dir"):
				return cli.Usagef("--local-dir and --cache-dir: expected one of them")
			case len(names) > 0 && len(include)+len(exclude) > 0:
				return cli.Usagef("--include and --exclude don't go with names of files")
			case workers < 1 || workers > 64:
				return cli.Usagef("--max-workers: expected 1 to 64, got %d", workers)
			case !slices.Contains([]hub.Type{hub.Model, hub.Dataset, hub.Space}, r.Type):
				return cli.Usagef("--repo-type: expected model, dataset or space, got %q", repoType)
			}
			if err := hub.CheckID(r.ID); err != nil {
				return cli.Usagef("%v", err)
			}
			which := hub.Filter{Ignore: exclude}
			if len(include) > 0 {
				which.Allow = include
			}
			for _, n := range names {
				if err := hub.CheckName(strings.TrimSuffix(n, "/")); err != nil {
					return cli.Usagef("%v", err)
				}
			}
			o := hub.Options{CacheDir: flags.cacheDir, Token: hub.NewToken(flags.token), ForceDownload: flags.force, Offline: flags.localOnly, Workers: workers}
			if !quiet {
				o.Progress = downloadBar(app)
			}
			c, err := hub.New(o)
			if err != nil {
				return err
			}
			defer c.Close()
			return download(cmd.Context(), app, c, r, names, which, localDir, dryRun)
		},
	}
	f := cmd.Flags()
	flags = addHubFlags(f)
	f.StringSliceVar(&include, "include", nil, "`patterns` of files to download (*.json); * goes over /, too")
	f.StringSliceVar(&exclude, "exclude", nil, "`patterns` of files to leave out")
	f.StringVar(&localDir, "local-dir", "", "put the files into this `folder` instead of the cache")
	f.StringVar(&repoType, "repo-type", "model", "model, dataset or space")
	f.IntVar(&workers, "max-workers", 8, "transfers at a time")
	f.BoolVar(&quiet, "quiet", false, "no progress bar")
	f.BoolVar(&dryRun, "dry-run", false, "print what would be downloaded, and download nothing")
	return cmd
}

func download(ctx context.Context, app *cli.App, c *hub.Client, r hub.Repo, names []string, which hub.Filter, localDir string, dryRun bool) error {
	s, err := c.Resolve(ctx, r)
	if err != nil {
		return err
	}
	out := downloaded{Path: s.Dir(), RepoID: s.Repo.ID, RepoType: s.Repo.Type, Revision: s.Repo.Revision, Commit: s.Commit, DryRun: dryRun, Files: []downloadFile{}}
	single := len(names) == 1 && !strings.HasSuffix(names[0], "/") && localDir == "" && !dryRun && !app.JSON
	if single { // one question is enough, and a list of files may be long
		path, err := s.File(ctx, names[0])
		if err == nil {
			_, err = fmt.Fprintln(app.Stdout, path)
		}
		return err
	}
	chosen, err := choose(ctx, s, names, which)
	if errors.Is(err, hub.ErrOffline) && len(names) == 0 && which.Allow == nil && which.Ignore == nil && localDir == "" && !dryRun {
		// Nobody knows what the commit has: what is there is taken, as in Python.
		if out.Path, err = s.Download(ctx, which); err != nil {
			return err
		}
		return printDownloaded(app, out)
	}
	if err != nil {
		return err
	}
	var exact []string
	for _, e := range chosen {
		cached, err := s.Cached(e.Name)
		if err != nil {
			return err
		}
		out.Files = append(out.Files, downloadFile{e.Name, e.Size, dryRun && cached == ""})
		exact = append(exact, e.Name)
	}
	switch {
	case dryRun:
	case localDir != "":
		if out.Path, err = filepath.Abs(localDir); err != nil {
			return err
		}
		err = s.DownloadTo(ctx, localDir, literally(exact))
	default:
		_, err = s.Download(ctx, literally(exact))
	}
	if err != nil {
		return err
	}
	return printDownloaded(app, out)
}

// choose gives the files that are meant. A name that the commit has not is an error, a pattern that fits none
// is one, too.
func choose(ctx context.Context, s *hub.Snapshot, names []string, which hub.Filter) ([]hub.Entry, error) {
	if len(names) == 0 {
		chosen, err := s.Select(ctx, which)
		if err == nil && len(chosen) == 0 && (which.Allow != nil || which.Ignore != nil) {
			err = fmt.Errorf("%s: no file fits the patterns", s.Repo.ID)
		}
		return chosen, err
	}
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var chosen []hub.Entry
	for _, e := range all {
		if slices.ContainsFunc(names, func(n string) bool { return n == e.Name || strings.HasSuffix(n, "/") && strings.HasPrefix(e.Name, n) }) {
			chosen = append(chosen, e)
		}
	}
	for _, n := range names {
		if !slices.ContainsFunc(chosen, func(e hub.Entry) bool {
			return e.Name == n || strings.HasSuffix(n, "/") && strings.HasPrefix(e.Name, n)
		}) {
			return nil, &hub.Error{File: s.Repo.ID + "/" + n, Class: hub.ErrEntryNotFound, Detail: "commit " + s.Commit}
		}
	}
	return chosen, nil
}

// literally is a filter for names.
func literally(names []string) hub.Filter {
	f := hub.Filter{Allow: []string{}}
	for _, n := range names {
		f.Allow = append(f.Allow, strings.NewReplacer("[", "[[]", "*", "[*]", "?", "[?]").Replace(n))
	}
	return f
}

func printDownloaded(app *cli.App, out downloaded) error {
	if app.JSON {
		return app.PrintJSON(out)
	}
	if !out.DryRun {
		_, err := fmt.Fprintln(app.Stdout, out.Path)
		return err
	}
	n, bytes := 0, int64(0)
	rows := [][]string{{"FILE", "SIZE"}}
	for _, f := range out.Files {
		size := "-"
		if f.Download {
			n, bytes, size = n+1, bytes+f.Size, sizeText(f.Size)
		}
		rows = append(rows, []string{f.Name, size})
	}
	if _, err := fmt.Fprintf(app.Stdout, "Will download %d files (out of %d) totalling %s.\n", n, len(out.Files), sizeText(bytes)); err != nil {
		return err
	}
	return printTable(app, rows)
}
