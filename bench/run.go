package main

import (
	"context"
	"fmt"
)

// work1 is this program as a worker.
func work1(ctx context.Context, kind, model, texts string) error {
	switch kind {
	case "ops":
		return serve(opWorks())
	}
	return fmt.Errorf("unknown worker %q", kind)
}

func writeMarkdown(file string, results []result, a about) error { return nil }
