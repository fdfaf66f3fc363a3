package main

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"unicode"
)

// A Func is the Go function of an operator.
type Func struct {
	Schema   *Schema
	Kind     Kind
	Name     string // "AddScalar_"
	Receiver string // "Tensor", the type of a namespace, or "" for a package function
	OpVar    string // the variable with its handle
	Params   []Param
	Options  *Options
	Variadic bool    // the last parameter is ...int
	Pushes   []Push  // in the schema's order
	Results  []Value // in the schema's order

	base, suffix string // "Add", "Scalar"
	excluded     *exclusion
}

// Kind tells how a function treats its arguments.
type Kind int

const (
	Functional Kind = iota
	InPlace         // writes to its first argument: Add_
	Out             // writes to arguments that come first: AddOut
)

// FullName is how a caller writes it: torch.Cat, Tensor.Add, torch.Internal.Softmax.
func (f *Func) FullName() string {
	switch f.Receiver {
	case "":
		return "torch." + f.Name
	case "Tensor":
		return "Tensor." + f.Name
	}
	return "torch." + strings.TrimSuffix(f.Receiver, "Ops") + "." + f.Name
}

// A Param is a positional parameter.
type Param struct {
	Name, Type string
	Arg        Arg
}

// A Value is a result.
type Value struct{ Name, Type, Get string }

// A Push hands one argument to the call.
type Push struct{ Code string }

// Options is a struct of optional arguments.
type Options struct {
	Name   string
	Fields []Field
	Owner  *Func // the function that it is declared beside
}

// A Field is an optional argument.
type Field struct {
	Name, Type string
	Default    string // in Go; "" where it is the zero value
	Arg        Arg
}

func (o *Options) same(p *Options) bool {
	if len(o.Fields) != len(p.Fields) {
		return false
	}
	for i := range o.Fields {
		a, b := o.Fields[i], p.Fields[i]
		if a.Name != b.Name || a.Type != b.Type || a.Default != b.Default {
			return false
		}
	}
	return true
}

// tensorOptions is the hand-written struct of what factories share.
const tensorOptions = "TensorOptions"

// An Excluded operator has no function.
type Excluded struct {
	Schema *Schema
	Rule   *exclusion
}

// API is what is generated.
type API struct {
	Version  string
	Funcs    []*Func // sorted by the name of their schemas
	Excluded []Excluded
}

// Build decides on the functions of all operators.
func Build(version string, list []*Schema) (*API, error) {
	api := &API{Version: version}
	groups := map[string][]*Func{}
	var order []string
	for _, s := range list {
		f := &Func{Schema: s, Kind: kindOf(s), excluded: excludedBy(s)}
		key := s.Namespace + "::" + groupBase(s, f.Kind)
		if groups[key] == nil {
			order = append(order, key)
		}
		// Excluded ones take part in naming: a name doesn't change when an exclusion goes.
		groups[key] = append(groups[key], f)
		if f.excluded != nil {
			api.Excluded = append(api.Excluded, Excluded{s, f.excluded})
		} else {
			api.Funcs = append(api.Funcs, f)
		}
	}
	for _, key := range order {
		if err := nameGroup(key, groups[key]); err != nil {
			return nil, err
		}
	}
	for _, f := range api.Funcs {
		if err := f.sign(); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Schema.Name(), err)
		}
	}
	nameOptions(api.Funcs)
	sort.Slice(api.Funcs, func(i, j int) bool { return api.Funcs[i].Schema.Name() < api.Funcs[j].Schema.Name() })
	return api, api.check()
}

func excludedBy(s *Schema) *exclusion {
	for i := range exclusions {
		if exclusions[i].match(s) {
			return &exclusions[i]
		}
	}
	return nil
}

func isDunder(name string) bool {
	return strings.HasPrefix(name, "__") && strings.HasSuffix(name, "__")
}

func kindOf(s *Schema) Kind {
	for _, a := range s.Args {
		if isOut(s, a) {
			return Out
		}
	}
	if strings.HasSuffix(s.Base, "_") && !isDunder(s.Base) && s.Mutates() {
		return InPlace
	}
	return Functional
}

// isOut tells an argument that only receives a result: written to, and keyword-only or called out.
func isOut(s *Schema, a Arg) bool {
	if !a.Type.Mutable {
		return false
	}
	if a.KwOnly {
		// foreach and fused in-place operators take what they also read by position.
		return true
	}
	return (strings.HasPrefix(a.Name, "out") || a.Name == "dst") && (strings.HasSuffix(s.Overload, "out") || strings.HasSuffix(s.Base, "_out"))
}

// groupBase is the name that an operator shares with its in-place and out variants.
func groupBase(s *Schema, k Kind) string {
	switch {
	case k == InPlace:
		return strings.TrimSuffix(s.Base, "_")
	case k == Out && s.Namespace != "aten":
		return strings.TrimSuffix(s.Base, "_out")
	}
	return s.Base
}

// camel spells a name of PyTorch's in Go: grad_output is GradOutput.
func camel(name string) string {
	var b strings.Builder
	for _, part := range strings.Split(name, "_") {
		if w, ok := words[part]; ok {
			part = w
		}
		if part != "" {
			b.WriteString(strings.ToUpper(part[:1]) + part[1:])
		}
	}
	return b.String()
}

// suffix is what an overload adds to the Go name, if it doesn't get the bare name.
func suffix(s *Schema, overload, bare string) string {
	if overload == "Scalar" && len(s.Args) > 0 && s.Args[0].Type.Base == "Scalar" {
		return "ScalarTensor" // pow.Scalar(Scalar self, Tensor exponent)
	}
	if strings.HasPrefix(bare, "Tensor") {
		for _, rest := range []string{"Scalar", "mode"} {
			if overload == "Tensor_"+rest {
				overload = rest
			}
		}
	}
	parts := strings.Split(overload, "_")
	if len(parts) > 1 {
		kept := parts[:0:0]
		for _, p := range parts {
			if !dropped[p] {
				kept = append(kept, p)
			}
		}
		parts = kept
	}
	return camel(strings.Join(parts, "_"))
}

// signature identifies what an operator takes, apart from where results are written.
func signature(s *Schema) string {
	var b strings.Builder
	for _, a := range s.Args {
		if isOut(s, a) {
			continue
		}
		t := a.Type
		t.Mutable = false
		fmt.Fprintf(&b, "%v %s,", t, a.Name)
	}
	return b.String()
}

// nameGroup names an operator's overloads with their in-place and out variants.
func nameGroup(key string, group []*Func) error {
	ns, name, _ := strings.Cut(key, "::")
	base := camel(name)
	// The overloads that decide on names: the functional ones, else the in-place ones, else all.
	var lead []*Func
	for _, k := range []Kind{Functional, InPlace, Out} {
		for _, f := range group {
			if f.Kind == k {
				lead = append(lead, f)
			}
		}
		if len(lead) > 0 {
			break
		}
	}
	given := func(f *Func, overload string) (string, bool) {
		k := key
		if overload != "" {
			k += "." + overload
		}
		s, ok := suffixes[k]
		return s, ok
	}
	var bare *Func
	for _, f := range lead {
		if s, ok := given(f, f.Schema.Overload); ok && s == "" {
			bare = f
		}
	}
	for _, o := range bareOverloads {
		for _, f := range lead {
			if _, ok := given(f, f.Schema.Overload); bare == nil && !ok && f.Schema.Overload == o {
				bare = f
			}
		}
	}
	if bare == nil && len(lead) == 1 {
		bare = lead[0]
	}
	if bare == nil {
		wanted := false
		for _, f := range group {
			wanted = wanted || f.excluded == nil
		}
		if !wanted {
			return nil
		}
		return fmt.Errorf("%s: no rule says which overload gets the bare name", key)
	}
	suffixOf := func(f *Func, overload string) string {
		if s, ok := given(f, overload); ok {
			return s
		}
		if f == bare {
			return ""
		}
		return suffix(f.Schema, overload, bare.Schema.Overload)
	}
	for _, f := range lead {
		f.suffix = suffixOf(f, f.Schema.Overload)
	}
	for _, f := range group {
		f.base = base
		if f.Kind != lead[0].Kind {
			f.suffix = variantSuffix(f, group, lead, suffixOf)
		}
		f.Name = base + f.suffix
		switch f.Kind {
		case InPlace:
			f.Name += "_"
		case Out:
			f.Name += "Out"
		}
		switch {
		case ns != "aten":
			n, ok := namespaces[ns]
			if !ok && f.excluded == nil {
				return fmt.Errorf("%s: namespace %q is in no table", key, ns)
			}
			f.Receiver = n.Var + "Ops"
		case strings.HasPrefix(name, "_"):
			f.Receiver = namespaces["aten::_"].Var + "Ops"
		case f.Schema.hasVariant("method"):
			f.Receiver = "Tensor"
		}
		f.OpVar = "torchOp" + f.Name
		if f.Receiver != "" {
			f.OpVar = strings.ToLower(strings.TrimSuffix(f.Receiver, "Ops")) + "Op" + f.Name
		}
	}
	return nil
}

// variantSuffix is the suffix of an in-place or out variant: that of the overload it is a variant of.
func variantSuffix(f *Func, group, lead []*Func, suffixOf func(*Func, string) string) string {
	if s, ok := suffixes[f.Schema.Name()]; ok {
		return s
	}
	overload := f.Schema.Overload
	if f.Kind == Out {
		overload = strings.TrimSuffix(strings.TrimSuffix(overload, "out"), "_")
	}
	sig := signature(f.Schema)
	for _, l := range lead {
		if signature(l.Schema) == sig {
			return l.suffix
		}
	}
	for _, l := range lead {
		if l.Schema.Overload == overload {
			return l.suffix
		}
	}
	for _, g := range group {
		if g.Kind == InPlace && f.Kind == Out && g.Schema.Overload == overload {
			return variantSuffix(g, group, lead, suffixOf)
		}
	}
	return suffixOf(f, overload)
}

// sign decides on parameters, options, results and the body.
func (f *Func) sign() error {
	s := f.Schema
	taken := map[string]bool{"cc": true, "o": true, "opts": true}
	if f.Receiver == "Tensor" {
		taken["t"] = true
	}
	receiver := -1
	if f.Receiver == "Tensor" {
		for i, a := range s.Args {
			if a.Name == "self" && a.Type.Base == "Tensor" && !a.Type.List {
				receiver = i
			}
		}
		if receiver < 0 {
			return fmt.Errorf("a method without a tensor called self")
		}
	}
	quartet := findQuartet(s.Args)
	var outs, params []Param
	opts := &Options{Owner: f}
	push := make([]string, len(s.Args))
	onlyQuartet := quartet >= 0
	for i, a := range s.Args {
		if (a.HasDefault) && hidden[s.Namespace+"::"+s.Base+"."+a.Name] == "" && (quartet < 0 || i < quartet || i >= quartet+4) {
			onlyQuartet = false
		}
	}
	for i, a := range s.Args {
		m, err := goType(a)
		if err != nil {
			return err
		}
		switch {
		case i == receiver:
			push[i] = m.push("t")
		case onlyQuartet && i >= quartet && i < quartet+4:
			fieldName := []string{"DType", "Layout", "Device", "PinMemory"}[i-quartet]
			push[i] = m.pushDefault("o."+fieldName, a)
		case hidden[s.Namespace+"::"+s.Base+"."+a.Name] != "":
			push[i] = m.constant(a)
		case a.HasDefault:
			field := Field{Name: fieldName(a.Name), Type: m.fieldType(a), Arg: a, Default: m.shownDefault(a)}
			push[i] = m.pushDefault("o."+field.Name, a)
			opts.Fields = append(opts.Fields, field)
		default:
			p := Param{Name: paramName(a.Name, taken), Type: m.paramType(a), Arg: a}
			push[i] = m.push(p.Name)
			if f.Kind == Out && isOut(s, a) {
				outs = append(outs, p)
			} else {
				params = append(params, p)
			}
		}
	}
	f.Params = append(outs, params...)
	if onlyQuartet {
		opts.Name = tensorOptions
		opts.Owner = nil
	}
	if onlyQuartet || len(opts.Fields) > 0 {
		f.Options = opts
	}
	if n := len(params); f.Options == nil && n > 0 {
		if t := params[n-1].Arg.Type; t.Base == "int" && t.List && !t.Optional {
			f.Variadic = true
		}
	}
	for _, p := range push {
		f.Pushes = append(f.Pushes, Push{p})
	}
	for _, r := range s.Returns {
		v, err := goResult(r)
		if err != nil {
			return err
		}
		f.Results = append(f.Results, v)
	}
	nameResults(f, taken)
	return nil
}

// nameResults keeps the schema's names of several results, if all have one that no parameter has.
func nameResults(f *Func, taken map[string]bool) {
	ok := len(f.Results) > 1
	seen := map[string]bool{}
	for i, r := range f.Schema.Returns {
		n := lowerCamel(r.Name)
		ok = ok && r.Name != "" && !strings.HasPrefix(r.Name, "_") && !taken[n] && !reserved[n] && !seen[n] && f.Kind != Out
		seen[n] = true
		f.Results[i].Name = n
	}
	if !ok {
		for i := range f.Results {
			f.Results[i].Name = ""
		}
	}
}

// findQuartet is where dtype, layout, device and pin_memory start, all optional; -1 if nowhere.
func findQuartet(args []Arg) int {
	for i := 0; i+3 < len(args); i++ {
		if args[i].Name == "dtype" && args[i+1].Name == "layout" && args[i+2].Name == "device" && args[i+3].Name == "pin_memory" &&
			args[i].HasDefault && args[i+1].HasDefault && args[i+2].HasDefault && args[i+3].HasDefault {
			return i
		}
	}
	return -1
}

func fieldName(name string) string { return camel(name) }

func lowerCamel(name string) string {
	c := camel(name)
	if c == "" {
		return "arg"
	}
	if c == strings.ToUpper(c) {
		return strings.ToLower(c)
	}
	// Lower the first word: DType is dtype, KeepDim is keepDim.
	for w, spelled := range words {
		if strings.HasPrefix(c, spelled) && strings.HasPrefix(name, w) && w == strings.ToLower(w) {
			return w + c[len(spelled):]
		}
	}
	r := []rune(c)
	r[0] = unicode.ToLower(r[0])
	return string(r)
}

// reserved are words that a parameter can't be called.
var reserved = set(`break case chan const continue default defer else fallthrough for func go goto if
	import interface map package range return select struct switch type var
	any bool float64 int string nil true false
	call op one`)

func paramName(name string, taken map[string]bool) string {
	n := lowerCamel(name)
	if name == "self" {
		n = "input"
	}
	for _, try := range []string{n, n + "Arg", "self", n + "Arg2"} {
		if !reserved[try] && !taken[try] {
			taken[try] = true
			return try
		}
	}
	panic("no name for " + name)
}

// nameOptions names the option structs: after the functional variant of an operator, which the in-place
// and out variants share where they have the same fields.
func nameOptions(group []*Func) {
	lead := map[string]*Options{}
	for _, k := range []Kind{Functional, InPlace, Out} {
		for _, f := range group {
			if f.Kind != k || f.Options == nil || f.Options.Name != "" {
				continue
			}
			ns := ""
			if f.Receiver != "" && f.Receiver != "Tensor" {
				ns = strings.TrimSuffix(f.Receiver, "Ops")
			}
			name := ns + f.base + f.suffix
			prev := lead[name]
			switch {
			case prev != nil && prev.same(f.Options):
				f.Options = prev
				continue
			case prev == nil:
				lead[name] = f.Options
			case k == InPlace:
				name += "InPlace"
			default:
				name += "Out"
			}
			f.Options.Name = name + "Options"
		}
	}
}

// check makes sure that no two functions, structs or fields share a name.
func (api *API) check() error {
	seen := map[string]string{}
	add := func(name, what string) error {
		if other, ok := seen[name]; ok {
			return fmt.Errorf("%s is both %s and %s", name, other, what)
		}
		seen[name] = what
		return nil
	}
	for _, f := range api.Funcs {
		if err := add(f.Receiver+"."+f.Name, f.Schema.Text); err != nil {
			return err
		}
		if err := add("var "+f.OpVar, f.Schema.Text); err != nil {
			return err
		}
		o := f.Options
		if o == nil || o.Owner != f {
			continue
		}
		if err := add("."+o.Name, "options of "+f.Schema.Text); err != nil {
			return err
		}
		for _, field := range o.Fields {
			if err := add(o.Name+" field "+field.Name, field.Arg.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// A mapping says how values of a type reach the call.
type mapping struct {
	goType string // of a required argument
	method string // of call, for a value
	opt    string // of call, for an optional value; "" where there is none
	nilled bool   // the Go type has a nil or unset that stands for None
}

var mappings = map[string]mapping{
	"Tensor":       {"*Tensor", "tensor", "optTensor", true},
	"Tensor[]":     {"[]*Tensor", "tensors", "", true},
	"Tensor?[]":    {"[]*Tensor", "optTensors", "", true},
	"int":          {"int", "int", "optInt", false},
	"int[]":        {"[]int", "ints", "optInts", true},
	"float":        {"float64", "float", "optFloat", false},
	"float[]":      {"[]float64", "floats", "optFloats", true},
	"bool":         {"bool", "bool", "optBool", false},
	"bool[]":       {"[]bool", "bools", "", true},
	"str":          {"string", "str", "optStr", false},
	"str[]":        {"[]string", "strs", "", true},
	"Scalar":       {"Scalar", "scalar", "optScalar", true},
	"Scalar[]":     {"[]Scalar", "scalars", "", true},
	"Scalar?[]":    {"[]Scalar", "optScalars", "", true},
	"ScalarType":   {"DType", "dtype", "optDType", true},
	"Layout":       {"Layout", "layout", "optLayout", true},
	"Device":       {"Device", "device", "optDevice", true},
	"MemoryFormat": {"MemoryFormat", "memoryFormat", "optMemoryFormat", true},
	"Generator":    {"*Generator", "", "generator", true},
	"Object":       {"*Object", "object", "", true},
	"Object[]":     {"[]*Object", "objectList", "", true},
	"Tensor[][]":   {"[][]*Tensor", "tensorLists", "", true},
}

// key is how the tables below name a type, apart from whether it is optional.
func (t Type) key() string {
	key := t.Base
	if strings.HasPrefix(key, "__torch__.") {
		key = "Object"
	}
	if t.ElemOpt {
		key += "?"
	}
	if t.List {
		key += "[]"
	}
	if t.Nested {
		key += "[]"
	}
	return key
}

func goType(a Arg) (mapping, error) {
	t := a.Type
	key := t.key()
	if key == "Any" && anyStrings[a.Name] {
		key = "str"
	}
	m, ok := mappings[key]
	if !ok {
		return m, fmt.Errorf("argument %s: type %q has no Go form", a.Name, key)
	}
	if t.Optional && m.opt == "" {
		return m, fmt.Errorf("argument %s: optional %q has no Go form", a.Name, key)
	}
	return m.of(a), nil
}

// of narrows a mapping to one argument: after it, opt is "" where the value is never None.
func (m mapping) of(a Arg) mapping {
	switch {
	case m.method == "": // always optional
	case !a.Type.Optional || a.HasDefault && a.Default != "None":
		// A default other than None stands in for it.
		m.opt = ""
	}
	return m
}

func (m mapping) paramType(a Arg) string {
	if m.opt != "" && !m.nilled {
		return "Opt[" + m.goType + "]"
	}
	return m.goType
}

func (m mapping) push(v string) string {
	if m.opt != "" {
		return fmt.Sprintf("cc.%s(%s)", m.opt, v)
	}
	return fmt.Sprintf("cc.%s(%s)", m.method, v)
}

// pinMemory tells the one bool? whose None means the same as false everywhere.
func pinMemory(a Arg) bool { return a.Name == "pin_memory" && a.Type.Base == "bool" }

func (m mapping) fieldType(a Arg) string {
	switch {
	case pinMemory(a), m.nilled:
		return m.goType
	case m.opt != "", m.goDefault(a) != m.zero():
		return "Opt[" + m.goType + "]"
	}
	return m.goType
}

func (m mapping) zero() string {
	switch m.goType {
	case "int", "float64":
		return "0"
	case "bool":
		return "false"
	case "string":
		return `""`
	}
	return "nil"
}

// goDefault is a default in Go.
func (m mapping) goDefault(a Arg) string {
	d := a.Default
	switch {
	case d == "None":
		return "nil"
	case a.Type.List:
		if d == "[]" {
			return "nil"
		}
		if !strings.HasPrefix(d, "[") {
			n, err := strconv.Atoi(a.Type.N)
			if err != nil {
				panic("default " + d + " of a list without a length")
			}
			return strings.TrimSuffix(strings.Repeat(d+", ", n), ", ")
		}
		return strings.Trim(d, "[]")
	case d == "False" || d == "True":
		return strings.ToLower(d)
	}
	switch a.Type.Base {
	case "ScalarType":
		return mustIn(scalarTypes, d)
	case "MemoryFormat":
		return mustIn(memoryFormats, d)
	case "float", "Scalar":
		v, err := strconv.ParseFloat(d, 64)
		if err != nil {
			panic(err)
		}
		s := strconv.FormatFloat(v, 'g', -1, 64)
		if a.Type.Base == "Scalar" && strings.ContainsAny(d, ".e") && !strings.ContainsAny(s, ".e") {
			s += ".0"
		}
		return s
	}
	return d
}

func mustIn(table map[string]string, d string) string {
	v, ok := table[d]
	if !ok {
		panic("default " + d + " is in no table")
	}
	return v
}

// shownDefault is the default for a field's comment; "" where it is the zero value.
func (m mapping) shownDefault(a Arg) string {
	d := m.goDefault(a)
	switch {
	case d == "nil", pinMemory(a) && d == "false", !m.nilled && m.opt == "" && d == m.zero():
		return ""
	case a.Type.List:
		return "[" + d + "]"
	}
	return d
}

// pushDefault hands over a field, or the default where it is unset.
func (m mapping) pushDefault(v string, a Arg) string {
	d := m.goDefault(a)
	switch {
	case pinMemory(a):
		return fmt.Sprintf("cc.pinMemory(%s)", v)
	case d == "nil":
		return m.push(v)
	case a.Type.List:
		return fmt.Sprintf("cc.%s(or%s(%s, %s))", m.method, camel(m.method), v, d)
	case m.nilled:
		return fmt.Sprintf("cc.%s(or%s(%s, %s))", m.method, m.goType, v, d)
	case m.opt == "" && d == m.zero():
		return m.push(v)
	}
	return fmt.Sprintf("cc.%s(%s.Or(%s))", m.method, v, d)
}

// constant hands over the default.
func (m mapping) constant(a Arg) string {
	d := m.goDefault(a)
	if d == "nil" {
		return "cc.none()"
	}
	return fmt.Sprintf("cc.%s(%s)", m.method, d)
}

var results = map[string][2]string{
	"Tensor":     {"*Tensor", "retTensor"},
	"Tensor?":    {"*Tensor", "retTensor"},
	"Tensor[]":   {"[]*Tensor", "retTensors"},
	"int":        {"int", "retInt"},
	"int[]":      {"[]int", "retInts"},
	"float":      {"float64", "retFloat"},
	"bool":       {"bool", "retBool"},
	"str":        {"string", "retStr"},
	"Scalar":     {"Scalar", "retScalar"},
	"ScalarType": {"DType", "retDType"},
	"Object":     {"*Object", "retObject"},
	"Tensor[][]": {"[][]*Tensor", "retTensorLists"},
}

func goResult(a Arg) (Value, error) {
	t := a.Type
	key := t.key()
	if t.Optional {
		key += "?"
	}
	r, ok := results[key]
	if !ok {
		return Value{}, fmt.Errorf("result type %q has no Go form", key)
	}
	return Value{Type: r[0], Get: r[1]}, nil
}

// callOnly are the types that torch.Call takes or returns and typed functions don't.
var callOnly = set("Storage Stream Any QScheme Dict")

// hasGoForm tells whether torch.Call can take the arguments and return the results.
func (s *Schema) hasGoForm() bool {
	for _, a := range s.Args {
		if _, err := goType(a); err != nil && !callOnly[a.Type.key()] {
			return false
		}
	}
	for _, r := range s.Returns {
		if _, err := goResult(r); err != nil && !callOnly[r.Type.key()] {
			return false
		}
	}
	return !s.Vararg
}
