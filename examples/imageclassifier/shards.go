package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/data"
	"github.com/wangkuiyi/gotorch/tool/tgz"
	"github.com/wangkuiyi/gotorch/vision"
)

// A shard is a tar.gz of PNG images, each in the folder of its class: circle/000017.png.

const side = 32 // pixels

// shapes are the classes: whether a point (x, y), |x| and |y| up to 1, is inside.
var shapes = []struct {
	name   string
	inside func(x, y float64) bool
}{
	{"circle", func(x, y float64) bool { return x*x+y*y <= 1 }},
	{"cross", func(x, y float64) bool { return max(x, -x) <= 0.3 || max(y, -y) <= 0.3 }},
	{"square", func(x, y float64) bool { return true }},
	{"triangle", func(x, y float64) bool { return max(x, -x) <= (y+1)/2 }},
}

// writeShard synthesizes n images, a quarter of each class, in random places, sizes, colours and noise.
func writeShard(file string, n int, random *rand.Rand) error {
	w, err := tgz.CreateFile(file)
	if err != nil {
		return err
	}
	for i := range n {
		shape := shapes[i%len(shapes)]
		var b bytes.Buffer
		if err := png.Encode(&b, synthesize(shape.inside, random)); err != nil {
			return err
		}
		header := tar.Header{Name: fmt.Sprintf("%s/%06d.png", shape.name, i), Mode: 0o644, Size: int64(b.Len())}
		if err := w.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := b.WriteTo(w); err != nil {
			return err
		}
	}
	return w.Close()
}

func synthesize(inside func(x, y float64) bool, random *rand.Rand) image.Image {
	value := func() uint8 { return uint8(random.IntN(256)) }
	back := color.RGBA{value(), value(), value(), 255}
	fill := color.RGBA{back.R + 64 + value()/2, back.G + 64 + value()/2, back.B + 64 + value()/2, 255} // modulo 256: never alike
	img := vision.SynthesizeImage(side, side, back).(draw.Image)
	radius := 6 + 6*random.Float64()
	cx, cy := radius+random.Float64()*(side-2*radius), radius+random.Float64()*(side-2*radius)
	for y := range side {
		for x := range side {
			c := img.At(x, y).(color.RGBA)
			if dx, dy := (float64(x)-cx)/radius, (float64(y)-cy)/radius; max(dx, -dx, dy, -dy) <= 1 && inside(dx, dy) {
				c = fill
			}
			for _, v := range []*uint8{&c.R, &c.G, &c.B} {
				*v = uint8(min(255, max(0, float64(*v)+16*random.NormFloat64())))
			}
			img.Set(x, y, c)
		}
	}
	return img
}

// readShards reads all images of the shards that match a pattern: X uint8 (N, 3, 32, 32), Y int64 (N).
func readShards(ctx context.Context, pattern string) (set data.Tensors, err error) {
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		return set, errors.Join(err, fmt.Errorf("%s: no shards", pattern))
	}
	var pixels []uint8
	var labels []int64
	for _, file := range files {
		if err := ctx.Err(); err != nil {
			return set, err
		}
		if err := readShard(file, func(img image.Image, label int) {
			pixels, labels = appendPixels(pixels, img), append(labels, int64(label))
		}); err != nil {
			return set, fmt.Errorf("%s: %w", file, err)
		}
	}
	return data.Tensors{X: torch.FromSlice(pixels, len(labels), 3, side, side), Y: torch.FromSlice(labels)}, nil
}

func readShard(file string, add func(img image.Image, label int)) error {
	r, err := tgz.OpenFile(file)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		header, err := r.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		label := slices.Index(classes(), path.Base(path.Dir(header.Name)))
		img, err := png.Decode(r)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", header.Name, err)
		case label < 0:
			return fmt.Errorf("%s: its folder is none of %v", header.Name, classes())
		case img.Bounds().Size() != image.Pt(side, side):
			return fmt.Errorf("%s: size %v, want %d×%d", header.Name, img.Bounds().Size(), side, side)
		}
		add(img, label)
	}
}

// appendPixels appends an image as (3, 32, 32): all red values, then green, then blue.
func appendPixels(pixels []uint8, img image.Image) []uint8 {
	rgba := image.NewRGBA(image.Rect(0, 0, side, side))
	draw.Draw(rgba, rgba.Bounds(), img, img.Bounds().Min, draw.Src)
	for channel := range 3 {
		for i := channel; i < len(rgba.Pix); i += 4 {
			pixels = append(pixels, rgba.Pix[i])
		}
	}
	return pixels
}

func classes() (names []string) {
	for _, s := range shapes {
		names = append(names, s.name)
	}
	return names
}
