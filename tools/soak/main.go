// Command soak runs torchgo for long and looks for what only time shows: memory that grows, handles,
// goroutines, threads or descriptors that are not given back, answers that change.
//
//	go run ./tools/soak -minutes 10               every soak, in a process of its own each
//	go run ./tools/soak -minutes 10 close scopes  these
//	go run -race ./tools/soak -minutes 5 clients  with the race detector
//
// It prints a line a soak and exits with 1 if one failed. docs/reliability.md has the figures.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"time"
)

func main() {
	minutes := flag.Float64("minutes", 10, "how long each soak runs")
	child := flag.Bool("child", false, "run the one soak that is named in this process")
	flag.Usage = usage
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	names := flag.Args()
	if len(names) == 0 {
		for _, s := range soaks {
			names = append(names, s.name)
		}
	}
	failed := 0
	for _, name := range names {
		s, ok := find(name)
		if !ok {
			fmt.Fprintf(os.Stderr, "soak: there is no soak %q\n", name)
			usage()
			os.Exit(2)
		}
		length := time.Duration(*minutes * float64(time.Minute))
		if *child {
			if !s.start(ctx, length).print(os.Stdout) {
				failed++
			}
		} else if err := again(ctx, name, *minutes); err != nil {
			fmt.Fprintf(os.Stderr, "soak: %s: %v\n", name, err)
			failed++
		}
		if ctx.Err() != nil {
			os.Exit(130)
		}
	}
	if failed > 0 {
		fmt.Fprintf(os.Stderr, "soak: %d of %d failed\n", failed, len(names))
		os.Exit(1)
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: soak [-minutes N] [soak ...]")
	for _, s := range soaks {
		fmt.Fprintf(os.Stderr, "  %-11s %s\n", s.name, s.what)
	}
}

// again runs one soak in a process of its own: resident memory is the process's.
func again(ctx context.Context, name string, minutes float64) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-child", fmt.Sprint("-minutes=", minutes), name)
	// Few arenas: glibc gives each thread one of its own and keeps in each what was freed there.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MALLOC_ARENA_MAX=") }), "MALLOC_ARENA_MAX=2")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}
