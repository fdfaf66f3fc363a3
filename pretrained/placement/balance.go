package placement

import "slices"

// Balance lowers the budgets of GPUs so that Map spreads a model evenly over them; with lowZero as little as
// possible goes to the first, which has other work then. The last GPU keeps its budget, in case the others' are
// too small. (get_balanced_memory.)
func Balance(root *Module, ties map[string]string, budgets []Budget, lowZero bool) []Budget {
	out := slices.Clone(budgets)
	var gpus []int // indices of those with memory
	for i, b := range out {
		if b.Device != CPU && b.Device != Disk && b.Bytes > 0 {
			gpus = append(gpus, i)
		}
	}
	n := int64(len(gpus))
	if n == 0 {
		return out
	}
	lowZero = lowZero && n > 1
	sizes := sizesOf(root, ties, false)
	each := sizes[""] / n
	if lowZero {
		each = sizes[""] / (n - 1)
	}
	each += largestPart(root, ties, sizes) * 5 / 4
	for _, i := range gpus[:n-1] {
		if !lowZero || i != 0 {
			out[i].Bytes = min(out[i].Bytes, each)
		}
	}
	if lowZero {
		rest := sizes[""]
		for _, b := range out[1:n] {
			rest -= b.Bytes
		}
		out[0].Bytes = min(out[0].Bytes, max(0, rest))
	}
	return out
}

// largestPart is the size of the largest module that may not be split, or of the largest that has tensors of its
// own, those alone counted.
func largestPart(root *Module, ties map[string]string, sizes map[string]int64) (largest int64) {
	var visit func(path string, m *Module)
	visit = func(path string, m *Module) {
		if m.NoSplit {
			largest = max(largest, sizes[path])
		}
		if path != "" {
			var own int64
			for _, t := range slices.Concat(m.Parameters, m.Buffers) {
				if _, tied := ties[join(path, t.Name)]; !tied {
					own += t.Bytes
				}
			}
			largest = max(largest, own)
		}
		for _, c := range m.Children {
			visit(join(path, c.Name), c)
		}
	}
	visit("", root)
	return largest
}
