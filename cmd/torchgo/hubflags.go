package main

import (
	"github.com/spf13/pflag"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/hub"
)

// hubFlags say where a hub id's files come from and go to.
type hubFlags struct {
	revision, cacheDir, token string
	force, localOnly          bool
}

func addHubFlags(f *pflag.FlagSet) *hubFlags {
	h := &hubFlags{}
	f.StringVar(&h.revision, "revision", "", "branch, tag, commit or refs/pr/N of a hub id (default: main)")
	f.StringVar(&h.cacheDir, "cache-dir", "", "the hub's cache (default: HF_HUB_CACHE, HF_HOME/hub or ~/.cache/huggingface/hub)")
	f.StringVar(&h.token, "token", "", "the hub's token; others can see it in the list of processes, so better set HF_TOKEN")
	f.BoolVar(&h.force, "force-download", false, "download again what the cache has")
	f.BoolVar(&h.localOnly, "local-files-only", false, "make no request: the cache has to have it all")
	return h
}

// apply sets the flags in options.
func (h *hubFlags) apply(app *cli.App, o *pretrained.Options) {
	o.Revision, o.CacheDir, o.Token, o.ForceDownload, o.LocalFilesOnly = h.revision, h.cacheDir, hub.NewToken(h.token), h.force, h.localOnly
	o.DownloadProgress = downloadBar(app)
}

// downloadBar shows how far a download is; nil if there are no bars, or HF_HUB_DISABLE_PROGRESS_BARS is set.
func downloadBar(app *cli.App) func(hub.Progress) {
	bars := app.Progress()
	if bars == nil || hub.NoProgressBars() {
		return nil
	}
	return func(p hub.Progress) { bars.Bytes("downloading", p.AllDone, p.AllTotal) }
}
