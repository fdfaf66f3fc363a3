package main

import (
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io"
	"math"
	"strconv"
)

// The chart is drawn with the standard library: a plotting library would be the largest requirement of the
// whole module. It is drawn three times too large and then shrunk, which smooths the edges.

const (
	chartWidth, chartHeight = 640, 400 // pixels
	margin                  = 40       // left and below, where the labels are
	oversampling            = 3
)

var (
	white = color.RGBA{255, 255, 255, 255}
	black = color.RGBA{40, 40, 40, 255}
	grid  = color.RGBA{222, 222, 222, 255}
	faint = color.RGBA{176, 200, 232, 255}
	blue  = color.RGBA{24, 82, 168, 255}
)

// glyphs are digits and the point, 3×5: a row has three bits.
var glyphs = map[rune][5]uint8{
	'0': {7, 5, 5, 5, 7}, '1': {2, 6, 2, 2, 7}, '2': {7, 1, 7, 4, 7}, '3': {7, 1, 7, 1, 7}, '4': {5, 5, 7, 1, 1},
	'5': {7, 4, 7, 1, 7}, '6': {7, 4, 7, 5, 7}, '7': {7, 1, 1, 1, 1}, '8': {7, 5, 7, 5, 7}, '9': {7, 5, 7, 1, 7},
	'.': {0, 0, 0, 0, 2},
}

// canvas maps steps and losses to pixels of the large image.
type canvas struct {
	*image.RGBA
	steps int     // of the x axis, from 0
	top   float64 // of the y axis, from 0
}

func (c *canvas) at(step, loss float64) (x, y float64) {
	width, height := float64(c.Bounds().Dx()-margin*oversampling), float64(c.Bounds().Dy()-margin*oversampling)
	return margin*oversampling + step/float64(c.steps)*(width-18*oversampling), height - loss/c.top*(height-9*oversampling)
}

func (c *canvas) fill(x, y, w, h int, with color.Color) {
	draw.Draw(c, image.Rect(x, y, x+w, y+h), image.NewUniform(with), image.Point{}, draw.Src)
}

// line draws from (x0, y0) to (x1, y1), so many pixels thick.
func (c *canvas) line(x0, y0, x1, y1 float64, thick int, with color.Color) {
	n := int(max(math.Abs(x1-x0), math.Abs(y1-y0))) + 1
	for i := range n + 1 {
		f := float64(i) / float64(n)
		c.fill(int(x0+f*(x1-x0))-thick/2, int(y0+f*(y1-y0))-thick/2, thick, thick, with)
	}
}

// label writes a number whose right or middle is at x, and its middle at y.
func (c *canvas) label(text string, x, y float64, middle bool) {
	const dot = 2 * oversampling
	width := len(text) * 4 * dot
	left := int(x) - width
	if middle {
		left = int(x) - width/2
	}
	for i, r := range text {
		for row, bits := range glyphs[r] {
			for column := range 3 {
				if bits>>(2-column)&1 == 1 {
					c.fill(left+(4*i+column)*dot, int(y)+(row-2)*dot, dot, dot, black)
				}
			}
		}
	}
}

func (c *canvas) curve(values []float64, thick int, with color.Color) {
	for i := 1; i < len(values); i++ {
		x0, y0 := c.at(float64(i), values[i-1]) // steps count from 1
		x1, y1 := c.at(float64(i+1), values[i])
		c.line(x0, y0, x1, y1, thick, with)
	}
}

// writeChart draws the loss of each step, and its running mean, as a PNG.
func writeChart(w io.Writer, losses []float64) error {
	top := 1.0
	for _, v := range losses {
		top = max(top, math.Ceil(v))
	}
	c := &canvas{image.NewRGBA(image.Rect(0, 0, chartWidth*oversampling, chartHeight*oversampling)), max(1, len(losses)), top}
	c.fill(0, 0, c.Bounds().Dx(), c.Bounds().Dy(), white)
	for v := 0.0; v <= top; v++ {
		x0, y := c.at(0, v)
		x1, _ := c.at(float64(c.steps), v)
		c.line(x0, y, x1, y, oversampling, grid)
		c.label(strconv.Itoa(int(v)), x0-4*oversampling, y, false)
	}
	for i := range 6 {
		step := c.steps * i / 5
		x, y0 := c.at(float64(step), 0)
		_, y1 := c.at(0, top)
		c.line(x, y0, x, y1, oversampling, grid)
		c.label(strconv.Itoa(step), x, y0+14*oversampling, true)
	}
	c.curve(losses, oversampling, faint)
	c.curve(runningMean(losses, 0.95), 2*oversampling, blue)
	return png.Encode(w, shrink(c.RGBA, oversampling))
}

// runningMean weights what is k steps back by decay^k.
func runningMean(values []float64, decay float64) []float64 {
	mean, sum, weight := make([]float64, len(values)), 0.0, 0.0
	for i, v := range values {
		sum, weight = decay*sum+v, decay*weight+1
		mean[i] = sum / weight
	}
	return mean
}

// shrink gives each pixel the mean of n×n.
func shrink(big *image.RGBA, n int) *image.RGBA {
	small := image.NewRGBA(image.Rect(0, 0, big.Bounds().Dx()/n, big.Bounds().Dy()/n))
	for i := range small.Pix {
		x, y, channel := i/4%small.Rect.Dx(), i/4/small.Rect.Dx(), i%4
		sum := 0
		for dy := range n {
			for dx := range n {
				sum += int(big.Pix[(y*n+dy)*big.Stride+(x*n+dx)*4+channel])
			}
		}
		small.Pix[i] = uint8(sum / (n * n))
	}
	return small
}
