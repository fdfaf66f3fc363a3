package main

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"strings"
)

// writeList writes a list of operators for ReadList: the schemas as the dispatcher prints them, with
// what native_functions.yaml (in the wheel, torchgen/packaged/ATen/native) says about each.
func writeList(w io.Writer, version string, schemas []string, yaml io.Reader) error {
	facts, err := yamlFacts(yaml)
	if err != nil {
		return err
	}
	sort.Strings(schemas)
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "# The operators of libtorch %s's dispatcher, libtorch_cpu alone. Written by tools/gen -dump.\n", version)
	fmt.Fprintf(b, "# A line: schema, tab, variants and module in PyTorch's Python API.\n")
	for _, text := range schemas {
		s, err := ParseSchema(text)
		if err != nil {
			return err
		}
		b.WriteString(text)
		if f := facts[s.Name()]; f != "" {
			b.WriteString("\t" + f)
		}
		b.WriteString("\n")
	}
	return b.Flush()
}

// yamlFacts reads the three keys it needs of native_functions.yaml, which writes one key a line.
func yamlFacts(r io.Reader) (map[string]string, error) {
	facts := map[string]string{}
	var name, variants, module string
	flush := func() {
		if name == "" {
			return
		}
		f := variants
		if module != "" {
			f += " module=" + module
		}
		facts["aten::"+name] = f
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		line := sc.Text()
		if i := strings.Index(line, " #"); i >= 0 {
			line = line[:i]
		}
		key, value, _ := strings.Cut(line, ": ")
		value = strings.TrimSpace(value)
		switch key {
		case "- func":
			flush()
			name, _, _ = strings.Cut(value, "(")
			variants, module = "function", ""
		case "  variants":
			variants = "function"
			switch fn, me := strings.Contains(value, "function"), strings.Contains(value, "method"); {
			case fn && me:
				variants = "function,method"
			case me:
				variants = "method"
			}
		case "  python_module":
			module = value
		}
	}
	flush()
	return facts, sc.Err()
}
