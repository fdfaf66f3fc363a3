// Command similarity embeds sentences with a sentence-transformers checkpoint and prints how alike
// each two are (the cosine of their vectors).
//
//	go run ./examples/similarity MODEL [SENTENCE…]
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	_ "github.com/torchgo/torchgo/pretrained/models" // every architecture
	"github.com/torchgo/torchgo/pretrained/sentence"
	"github.com/torchgo/torchgo/torch"
)

var defaults = []string{
	"The cat sits on the mat.",
	"A kitten is resting on a rug.",
	"Dogs are loyal animals.",
	"The stock market fell sharply today.",
	"Shares lost a lot of their value this afternoon.",
	"How do I bake bread at home?",
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: similarity MODEL [SENTENCE…]")
		os.Exit(2)
	}
	sentences := defaults
	if len(os.Args) > 2 {
		sentences = os.Args[2:]
	}
	if err := run(ctx, os.Stdout, os.Args[1], sentences); err != nil {
		fmt.Fprintln(os.Stderr, "similarity:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, w io.Writer, dir string, sentences []string) error {
	start := time.Now()
	model, err := sentence.Load(ctx, dir, sentence.Options{Normalize: torch.Some(true)})
	if err != nil {
		return err
	}
	defer model.Close()
	loaded := time.Since(start)
	vectors, err := model.Encode(ctx, sentences)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "loaded in %.2f s, %d sentences embedded in %.2f s\n\n", loaded.Seconds(), len(sentences), (time.Since(start) - loaded).Seconds())
	_, err = io.WriteString(w, table(sentences, vectors))
	return err
}

// table writes the cosines of all pairs; vectors (N, H) have length 1.
func table(sentences []string, vectors [][]float32) string {
	var b strings.Builder
	b.WriteString("      ")
	for j := range vectors {
		fmt.Fprintf(&b, "%6d", j+1)
	}
	b.WriteByte('\n')
	for i, v := range vectors {
		fmt.Fprintf(&b, "%4d  ", i+1)
		for _, u := range vectors {
			fmt.Fprintf(&b, "%6.2f", dot(v, u))
		}
		fmt.Fprintf(&b, "   %s\n", sentences[i])
	}
	return b.String()
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}
