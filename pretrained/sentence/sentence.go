// Package sentence embeds sentences with models in the layout of sentence-transformers: modules.json names
// a transformer, a pooling and perhaps a normalisation, 1_Pooling/config.json says how tokens are pooled.
//
//	enc, err := sentence.Load(ctx, "path/to/all-MiniLM-L6-v2", sentence.Options{})
//	defer enc.Close()
//	vectors, err := enc.Encode(ctx, []string{"A sentence.", "Another one."})
//
// A directory without modules.json is a transformer whose tokens are averaged.
package sentence

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/pretrained"
	"github.com/torchgo/torchgo/pretrained/tokenizer"
	"github.com/torchgo/torchgo/torch"
)

// Options are the arguments of Load. The zero value follows the files.
type Options struct {
	pretrained.Options // of the transformer; Class is chosen here

	Pooling      []Pooling       // instead of that of the files
	Normalize    torch.Opt[bool] // instead of whether the files have a Normalize module
	MaxSeqLength int             // tokens after which a text is cut off; default: that of the files
}

// Encoder turns sentences into vectors. It may be used by several goroutines at once.
type Encoder struct {
	Model     pretrained.Model
	Tokenizer *tokenizer.Tokenizer
	Report    *pretrained.Report

	Pooling      []Pooling // their results are put side by side
	Normalize    bool      // to length 1
	MaxSeqLength int       // 0: no limit
	lowercase    bool
}

// smallFiles are patterns of all that a model has but its weights.
var smallFiles = append([]string{"modules.json", "*sentence*.json"}, pretrained.TextFiles...)

// Load loads transformer, tokenizer and pooling of a directory, of one checkpoint file with the other
// files beside it, or of an id of the hub: all of one commit.
func Load(ctx context.Context, path string, opts Options) (*Encoder, error) {
	e := &Encoder{}
	dir, commit, err := pretrained.DownloadFiles(ctx, path, opts.Options, smallFiles...)
	if err != nil {
		return nil, err
	}
	if commit != "" {
		opts.Revision = commit
	}
	st, err := os.Stat(path)
	isFile := err == nil && st.Mode().IsRegular()
	if isFile {
		dir = filepath.Dir(path)
	}
	sub, err := e.readModules(dir)
	if err != nil {
		return nil, err
	}
	if opts.Pooling != nil {
		e.Pooling = opts.Pooling
	}
	for _, p := range e.Pooling {
		if poolings[p] == nil {
			return nil, &pretrained.Error{Class: pretrained.ErrArgument, Detail: "pooling", Expected: "one of " + poolingNames(), Actual: fmt.Sprintf("%q", p)}
		}
	}
	e.Normalize = opts.Normalize.Or(e.Normalize)
	if sub != "" && opts.Subfolder == "" {
		opts.Subfolder = sub
	}
	home := dir
	if !isFile {
		home = join(dir, opts.Subfolder)
	}
	if e.Tokenizer, err = tokenizer.FromPretrained(home); err != nil {
		return nil, err
	}
	opts.Class = pretrained.AutoModel.Name
	if e.Model, e.Report, err = pretrained.Load(ctx, path, opts.Options); err != nil {
		return nil, err
	}
	e.limitLength(opts.MaxSeqLength)
	return e, nil
}

// limitLength settles MaxSeqLength: the caller's, else the files', else what tokenizer and model can take.
func (e *Encoder) limitLength(asked int) {
	if asked > 0 {
		e.MaxSeqLength = asked
	}
	if e.MaxSeqLength == 0 {
		e.MaxSeqLength = e.Tokenizer.ModelMaxLength()
	}
	if n, ok := e.Model.Config().(interface{ MaxPositions() int }); ok && (e.MaxSeqLength == 0 || n.MaxPositions() < e.MaxSeqLength) {
		e.MaxSeqLength = n.MaxPositions()
	}
}

// Close frees the model.
func (e *Encoder) Close() { e.Model.Close() }

// EncodeOptions are the optional arguments of Encode.
type EncodeOptions struct {
	BatchSize int                   // sentences that are computed together; default 32
	Progress  func(done, total int) // called after each batch
}

// Encode embeds sentences: a vector each, in their order. It sorts them by length, so that little padding
// is computed; a batch is padded to its longest.
func (e *Encoder) Encode(ctx context.Context, sentences []string, opts ...EncodeOptions) ([][]float32, error) {
	var opt EncodeOptions
	if len(opts) > 0 {
		opt = opts[0]
	}
	if opt.BatchSize <= 0 {
		opt.BatchSize = 32
	}
	tokens, err := e.tokenize(sentences)
	if err != nil {
		return nil, err
	}
	order := make([]int, len(sentences))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(tokens[b].Len(), tokens[a].Len()) })

	// libgomp keeps a pool of threads for each thread that computes, so all batches use one.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	vectors := make([][]float32, len(sentences))
	done := 0
	for batch := range slices.Chunk(order, opt.BatchSize) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rows, err := e.embed(tokens, batch)
		if err != nil {
			return nil, err
		}
		for i, at := range batch {
			vectors[at] = rows[i]
		}
		if done += len(batch); opt.Progress != nil {
			opt.Progress(done, len(sentences))
		}
	}
	return vectors, nil
}

func (e *Encoder) tokenize(sentences []string) ([]tokenizer.Encoding, error) {
	texts := make([]string, len(sentences))
	for i, s := range sentences {
		if texts[i] = strings.TrimSpace(s); e.lowercase {
			texts[i] = strings.ToLower(texts[i])
		}
	}
	o := tokenizer.EncodeOptions{MaxLength: e.MaxSeqLength, Truncation: tokenizer.LongestFirst}
	if e.MaxSeqLength == 0 {
		o.Truncation = tokenizer.DoNotTruncate
	}
	return e.Tokenizer.EncodeBatch(texts, o)
}

// embed computes one batch, the rows of tokens that batch names, longest first.
func (e *Encoder) embed(tokens []tokenizer.Encoding, batch []int) (rows [][]float32, err error) {
	width := max(tokens[batch[0]].Len(), 1)
	ids, mask := make([]int64, len(batch)*width), make([]int64, len(batch)*width)
	pad, _ := e.Tokenizer.PadID()
	for i, at := range batch {
		row := tokens[at].IDs
		for j := range width {
			if k := i*width + j; j < len(row) {
				ids[k], mask[k] = int64(row[j]), 1
			} else {
				ids[k] = int64(pad)
			}
		}
	}
	err = torch.TryDo(func() {
		torch.Inference(func() {
			device := e.Model.InputDevice()
			in := pretrained.Inputs{
				InputIDs:      torch.FromSlice(ids, len(batch), width).To(device),
				AttentionMask: torch.FromSlice(mask, len(batch), width).To(device),
			}
			y := e.pool(e.Model.Forward(in).LastHiddenState, in.AttentionMask)
			values, c := torch.ToSlice[float32](y.ToDType(torch.Float32)), y.Size(1)
			for i := range batch {
				rows = append(rows, values[i*c:(i+1)*c:(i+1)*c])
			}
		})
	})
	if err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	return rows, nil
}
