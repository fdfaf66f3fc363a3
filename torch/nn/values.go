package nn

import "strconv"

// first is the options that were given, or none.
func first[T any](opts []T) (o T) {
	if len(opts) > 0 {
		return opts[0]
	}
	return o
}

func itoa(n int) string { return strconv.Itoa(n) }
