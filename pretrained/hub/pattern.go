package hub

import "strings"

// Filter chooses files of a repository by patterns: *, ?, [abc], [!abc], where * passes over / too, and a
// pattern that ends with / means what is below (Python's fnmatch.fnmatchcase).
type Filter struct {
	Allow  []string // nil: all
	Ignore []string
}

// Match tells whether a file is chosen.
func (f Filter) Match(name string) bool {
	name = strings.ReplaceAll(name, `\`, "/")
	return (f.Allow == nil || matchAny(f.Allow, name)) && !matchAny(f.Ignore, name)
}

func matchAny(patterns []string, name string) bool {
	for _, p := range patterns {
		p = strings.ReplaceAll(p, `\`, "/")
		if strings.HasSuffix(p, "/") {
			p += "*"
		}
		if fnmatch([]rune(p), []rune(name)) {
			return true
		}
	}
	return false
}

// fnmatch walks both once, going back to the last * where they part: never more than len(p)·len(s) steps.
func fnmatch(p, s []rune) bool {
	i, j := 0, 0
	star, from := -1, 0
	for j < len(s) {
		if i < len(p) {
			if p[i] == '*' {
				star, from = i, j
				i++
				continue
			}
			if ok, n := matchOne(p[i:], s[j]); ok {
				i += n
				j++
				continue
			}
		}
		if star < 0 {
			return false
		}
		from++
		i, j = star+1, from
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// matchOne matches the first element of a pattern, n runes long, against c.
func matchOne(p []rune, c rune) (ok bool, n int) {
	switch p[0] {
	case '?':
		return true, 1
	case '[':
	default:
		return p[0] == c, 1
	}
	end := 1
	if end < len(p) && p[end] == '!' {
		end++
	}
	if end < len(p) && p[end] == ']' {
		end++
	}
	for end < len(p) && p[end] != ']' {
		end++
	}
	if end >= len(p) {
		return c == '[', 1 // not closed: itself
	}
	set := p[1:end]
	negate := len(set) > 0 && set[0] == '!'
	if negate {
		set = set[1:]
	}
	for k := 0; k < len(set); k++ {
		if k+2 < len(set) && set[k+1] == '-' {
			if set[k] <= c && c <= set[k+2] {
				return !negate, end + 1
			}
			k += 2
		} else if set[k] == c {
			return !negate, end + 1
		}
	}
	return negate, end + 1
}
