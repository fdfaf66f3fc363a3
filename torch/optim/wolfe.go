package optim

import (
	"math"

	"github.com/torchgo/torchgo/torch"
)

// wolfe is a line search under the strong Wolfe conditions, with cubic interpolation.
type wolfe struct {
	l        *LBFGS
	evaluate func() float64
	x        []*torch.Tensor // where it starts
	d        *torch.Tensor   // where it goes
	round    func(float64) float64
	tol      float64
	max      int // iterations
}

// point is a place on the line.
type point struct {
	t, f  float64
	g     *torch.Tensor
	slope float64 // g·d
}

// at evaluates the loss at x + t d and goes back to x.
func (w *wolfe) at(t float64) point {
	w.l.move(t, w.d)
	f := w.evaluate()
	g := w.l.flatGrad()
	for i, p := range w.l.groups[0].Params {
		p.Copy_(w.x[i])
	}
	return point{t, f, g, dot(g, w.d)}
}

// run looks for a step, beginning with t; f, g and slope are those at x.
func (w *wolfe) run(t, f float64, g *torch.Tensor, slope float64) (loss float64, grad *torch.Tensor, step float64, calls int) {
	const c1, c2 = 1e-4, 0.9
	length := largest(w.d)
	now := w.at(t)
	calls = 1
	prev := point{0, f, g, slope}
	var bracket []point
	done := false
	n := 0
	for n < w.max {
		if now.f > w.round(f+w.round(c1*now.t*slope)) || n > 1 && now.f >= prev.f {
			bracket = []point{prev, now}
			break
		}
		if math.Abs(now.slope) <= -c2*slope {
			bracket, done = []point{now}, true
			break
		}
		if now.slope >= 0 {
			bracket = []point{prev, now}
			break
		}
		next := w.cubic(prev, now, now.t+0.01*(now.t-prev.t), now.t*10)
		prev, now = now, w.at(next)
		calls++
		n++
	}
	if bracket == nil {
		bracket = []point{{0, f, g, slope}, now}
	}
	stuck := false
	low, high := order(bracket)
	for !done && n < w.max {
		left, right := min(bracket[0].t, bracket[1].t), max(bracket[0].t, bracket[1].t)
		if math.Abs(bracket[1].t-bracket[0].t)*length < w.tol {
			break
		}
		from, to := bracket[0].t, bracket[1].t
		if from > to {
			from, to = to, from
		}
		t := w.cubic(bracket[0], bracket[1], from, to)
		// Close to an end twice, or at it: a tenth of the interval inside.
		eps := 0.1 * (right - left)
		if min(right-t, t-left) < eps {
			if stuck || t >= right || t <= left {
				if math.Abs(t-right) < math.Abs(t-left) {
					t = right - eps
				} else {
					t = left + eps
				}
				stuck = false
			} else {
				stuck = true
			}
		} else {
			stuck = false
		}
		now = w.at(t)
		calls++
		n++
		if now.f > w.round(f+w.round(c1*t*slope)) || now.f >= bracket[low].f {
			bracket[high] = now
			low, high = order(bracket)
			continue
		}
		if math.Abs(now.slope) <= -c2*slope {
			done = true
		} else if now.slope*(bracket[high].t-bracket[low].t) >= 0 {
			bracket[high] = bracket[low]
		}
		bracket[low] = now
	}
	best := bracket[low]
	return best.f, best.g, best.t, calls
}

// order tells which end of a bracket has the lower loss.
func order(bracket []point) (low, high int) {
	if bracket[0].f <= bracket[len(bracket)-1].f {
		return 0, 1
	}
	return 1, 0
}

// cubic is the minimum, within bounds, of the cubic through two points with their slopes.
func (w *wolfe) cubic(a, b point, from, to float64) float64 {
	r := w.round
	d1 := r(r(a.slope+b.slope) - r(3*(a.f-b.f)/(a.t-b.t)))
	square := r(r(d1*d1) - r(a.slope*b.slope))
	if !(square >= 0) {
		return (from + to) / 2
	}
	d2 := r(math.Sqrt(square))
	var t float64
	if a.t <= b.t {
		t = r(b.t - r(r(b.t-a.t)*r(r(b.slope+d2-d1)/r(b.slope-a.slope+2*d2))))
	} else {
		t = r(a.t - r(r(a.t-b.t)*r(r(a.slope+d2-d1)/r(a.slope-b.slope+2*d2))))
	}
	return min(max(t, from), to)
}
