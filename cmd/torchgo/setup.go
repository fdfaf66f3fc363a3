package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/torchgo/torchgo/cgo"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/cli"
	"github.com/torchgo/torchgo/cmd/torchgo/internal/setup"
	"github.com/torchgo/torchgo/internal/libtorch"
	thirdparty "github.com/torchgo/torchgo/third_party"
)

func init() {
	cli.Register(newSetup)
	cli.Register(newProbe)
}

func newSetup(app *cli.App) *cobra.Command {
	var o setup.Options
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Provide libtorch and build torchgo's library over it",
		Long: `Provide libtorch and build torchgo's library over it, in the user cache (TORCHGO_CACHE moves it).

libtorch is the one that --libtorch or LIBTORCH names (an unpacked libtorch, or a Python
environment's torch folder), else that of an installed Python torch of a supported version, else
pip (or uv) downloads the pinned wheels: 0.6 GB for the CPU, 3 GB for CUDA. What is there already is
kept, and an interrupted setup goes on where it was.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("device") && o.Device != "cpu" && o.Device != "cuda" {
				return cli.Usagef("--device %q: want cpu or cuda", o.Device)
			}
			return runSetup(cmd.Context(), app, o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.Device, "device", "", "cpu or cuda (default: what was set up last, else cpu)")
	flags.StringVar(&o.Libtorch, "libtorch", "", "an unpacked libtorch, or a Python environment's torch folder (default: $LIBTORCH)")
	flags.StringVar(&o.Version, "version", "", "version of libtorch")
	return cmd
}

func runSetup(ctx context.Context, app *cli.App, o setup.Options) error {
	start := time.Now()
	var err error
	if o.Cache, err = libtorch.Cache(); err != nil {
		return err
	}
	if o.Pins, err = thirdparty.Load(); err != nil {
		return err
	}
	o.Shim, o.ShimHash = cgo.ShimFS, cgo.ShimHash()
	o.Probe = probe
	bars := app.Progress()
	o.Progress = bars
	o.Say = func(format string, args ...any) {
		bars.Clear()
		fmt.Fprintf(app.Stderr, "setup: "+format+"\n", args...)
	}
	r, err := setup.Run(ctx, o)
	if err != nil {
		return err
	}
	if app.JSON {
		return app.PrintJSON(struct {
			setup.Result
			Seconds float64 `json:"seconds"`
		}{r, time.Since(start).Seconds()})
	}
	did := "all was there already"
	if r.Compiled {
		did = fmt.Sprintf("done in %.0f s", time.Since(start).Seconds())
		if r.Downloaded > 0 {
			did += fmt.Sprintf(", %d MB downloaded", r.Downloaded/1e6)
		}
	}
	_, err = fmt.Fprintf(app.Stdout, "libtorch %s (%s, from %s): %s\nshim: %s\n%s\n", r.Version, r.Device, r.Source, r.Libtorch, r.Shim, did)
	return err
}

// probe opens a shim in a process of its own: what goes wrong there must not end setup.
func probe(ctx context.Context, lib string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, exe, probeName, lib)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		line, _, _ := strings.Cut(stderr.String(), "\n")
		if line = strings.TrimPrefix(line, "torchgo: "+probeName+": "); line == "" {
			return err
		}
		return errors.New(line)
	}
	return nil
}

const probeName = "probe-shim"

func newProbe(app *cli.App) *cobra.Command {
	return &cobra.Command{
		Use:    probeName + " LIB",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := cgo.Load(cgo.Library{Shim: args[0]}); err != nil {
				return err
			}
			_, err := fmt.Fprintln(app.Stdout, cgo.Version())
			return err
		},
	}
}
