package main

import (
	"fmt"
	"io"
	"sort"
)

// writeDiff reports what changed between two lists of operators.
func writeDiff(w io.Writer, before, after []*Schema) {
	index := func(list []*Schema) map[string]*Schema {
		m := make(map[string]*Schema, len(list))
		for _, s := range list {
			m[s.Name()] = s
		}
		return m
	}
	old, now := index(before), index(after)
	var added, removed, changed []string
	for name, s := range now {
		switch o := old[name]; {
		case o == nil:
			added = append(added, s.Text)
		case o.Text != s.Text:
			changed = append(changed, o.Text+"\n      -> "+s.Text)
		}
	}
	for name, s := range old {
		if now[name] == nil {
			removed = append(removed, s.Text)
		}
	}
	fmt.Fprintf(w, "%d operators before, %d after: %d added, %d removed, %d changed\n",
		len(before), len(after), len(added), len(removed), len(changed))
	for _, part := range []struct {
		title string
		lines []string
	}{{"added", added}, {"removed", removed}, {"changed", changed}} {
		sort.Strings(part.lines)
		fmt.Fprintf(w, "\n%s (%d)\n", part.title, len(part.lines))
		for _, l := range part.lines {
			fmt.Fprintf(w, "    %s\n", l)
		}
	}
}
