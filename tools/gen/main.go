// Command gen writes the typed operators of package torch, torch/zz_*_gen.go and docs/operators.md,
// from the operator lists in third_party/.
//
//	go run ./tools/gen                       write the generated files
//	go run ./tools/gen -names                print each Go name, its schema and the rule that made it
//	go run ./tools/gen -diff OLD NEW         compare two operator lists
//	go run ./tools/gen -dump -yaml FILE      print the list of the libtorch that is set up
//
// FILE is torchgen/packaged/ATen/native/native_functions.yaml of the same version's wheel. Instead of
// asking libtorch, -schemas reads the dispatcher's schemas from a file, one a line.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// version is the libtorch that the API is generated for.
const version = "2.15.0"

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run() error {
	root := flag.String("root", ".", "the repository")
	diff := flag.Bool("diff", false, "compare the two operator lists named")
	names := flag.Bool("names", false, "print the Go names with the rules that made them")
	dump := flag.Bool("dump", false, "print an operator list")
	yaml := flag.String("yaml", "", "with -dump: native_functions.yaml")
	schemas := flag.String("schemas", "", "with -dump: a file of schemas, instead of those of libtorch")
	of := flag.String("version", version, "with -schemas: their version of libtorch")
	flag.Parse()
	switch {
	case *diff:
		if flag.NArg() != 2 {
			return fmt.Errorf("-diff: got %d operator lists, expected two", flag.NArg())
		}
		before, err := ReadListFile(flag.Arg(0))
		if err != nil {
			return err
		}
		after, err := ReadListFile(flag.Arg(1))
		if err != nil {
			return err
		}
		writeDiff(os.Stdout, before, after)
		return nil
	case *dump:
		f, err := os.Open(*yaml)
		if err != nil {
			return fmt.Errorf("-dump: -yaml: %w", err)
		}
		defer f.Close()
		v, list := *of, []string(nil)
		if *schemas != "" {
			text, err := os.ReadFile(*schemas)
			if err != nil {
				return err
			}
			list = strings.Split(strings.TrimSpace(string(text)), "\n")
		} else if v, list, err = dispatcherSchemas(); err != nil {
			return err
		}
		return writeList(os.Stdout, v, list, f)
	}
	list, err := ReadListFile(filepath.Join(*root, "third_party", "operators-"+version+".txt"))
	if err != nil {
		return err
	}
	api, err := Build(version, list)
	if err != nil {
		return err
	}
	if *names {
		return api.writeNames(os.Stdout)
	}
	return api.writeAll(*root)
}
