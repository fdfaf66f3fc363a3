package nn

import (
	"fmt"
	"reflect"
	"strings"
)

// String is the text that Python prints for m: the classes of the tree with their options. A module names its
// options with a method ExtraRepr() string, and itself, unless by its type, with ModuleName() string.
func String(m any) string { return describe(moduleValue(m)) }

func describe(module reflect.Value) string {
	m := reflect.NewAt(module.Type(), module.Addr().UnsafePointer()).Interface()
	var lines []string
	extra := ""
	if e, ok := m.(interface{ ExtraRepr() string }); ok {
		extra = e.ExtraRepr()
	}
	_, list := m.(*ModuleList)
	children := children(module)
	if list {
		lines = repeated(children)
	} else {
		for _, c := range children {
			lines = append(lines, "("+c.name+"): "+c.text)
		}
	}
	name := class(m)
	if l, ok := m.(interface{ waits() bool }); ok && l.waits() {
		name = "Lazy" + name
	}
	return name + "(" + body(extra, lines) + ")"
}

// class is the name of PyTorch's class.
func class(m any) string {
	if n, ok := m.(interface{ ModuleName() string }); ok {
		return n.ModuleName()
	}
	return reflect.TypeOf(m).Elem().Name()
}

func body(extra string, lines []string) string {
	if len(lines) == 0 {
		return extra
	}
	if extra != "" {
		lines = append([]string{extra}, lines...)
	}
	return "\n  " + strings.ReplaceAll(strings.Join(lines, "\n"), "\n", "\n  ") + "\n"
}

type child struct{ name, text string }

// children describes the modules that are directly below one; a slice of modules is a ModuleList.
func children(module reflect.Value) (list []child) {
	for _, f := range members(module) {
		switch {
		case f.tensor:
		case f.value.Kind() == reflect.Slice:
			var items []child
			for i := range f.value.Len() {
				if c, ok := deref(f.value.Index(i)); ok {
					items = append(items, child{itoa(i), describe(c)})
				}
			}
			list = append(list, child{f.name, "ModuleList(" + body("", repeated(items)) + ")"})
		default:
			if c, ok := deref(f.value); ok {
				list = append(list, child{f.name, describe(c)})
			}
		}
	}
	return list
}

// repeated are the lines of a ModuleList: neighbours that print alike share one.
func repeated(list []child) (lines []string) {
	for i := 0; i < len(list); {
		n := i + 1
		for n < len(list) && list[n].text == list[i].text {
			n++
		}
		if n == i+1 {
			lines = append(lines, fmt.Sprintf("(%s): %s", list[i].name, list[i].text))
		} else {
			lines = append(lines, fmt.Sprintf("(%s-%s): %d x %s", list[i].name, list[n-1].name, n-i, list[i].text))
		}
		i = n
	}
	return lines
}
