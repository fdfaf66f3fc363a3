package peft

import (
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/torchgo/torchgo/torch"
	"github.com/torchgo/torchgo/torch/nn"
)

// Target is a module that gets an adapter.
type Target struct {
	Path        string  // "encoder.layer.0.attention.self.query"
	Module      any     // *nn.Linear, *nn.Embedding or one with an nn.Conv inside
	R           int     // LoRA: its rank
	Alpha       float64 // LoRA: its alpha
	Feedforward bool    // IA³: its input is scaled, not its output
}

// Targets are what an adapter's config chooses of a model.
type Targets struct {
	Layers []Target // in the order of nn.NamedModules
	Save   []Target // modules_to_save: Path and Module alone

	// The config's as they are saved: with defaults and all-linear resolved, and patterns that sorting does not change.
	TargetModules, FeedforwardModules Names
	RankPattern                       []Pattern[int]
	AlphaPattern                      []Pattern[float64]

	Warnings []string
}

// ModelInfo is what targets depend on beside the modules.
type ModelInfo struct {
	ModelType        string       // model_type of its config: for default targets; "" unknown
	OutputEmbeddings string       // the path of its output layer, which all-linear leaves out; "" none
	InputEmbeddings  string       // the path of its table of tokens; "" none
	Device           torch.Device // for adapters of weights that are offloaded; default: CPU
}

// Resolve finds the modules that a config chooses, by peft's rules. Nothing found is ErrMissingTensor. Whether an
// adapter of this kind fits each module is not looked at.
func Resolve(model any, c *Config, info ModelInfo) (*Targets, error) {
	t := &Targets{}
	var err error
	if t.TargetModules, err = c.TargetModules.orDefault("target_modules", defaultTargets[c.PeftType], info.ModelType); err != nil {
		return nil, err
	}
	if t.FeedforwardModules = c.FeedforwardModules; c.PeftType == IA3 {
		if t.FeedforwardModules, err = c.FeedforwardModules.orDefault("feedforward_modules", defaultFeedforward, info.ModelType); err != nil {
			return nil, err
		}
	}
	if t.TargetModules.allLinear() {
		t.TargetModules = linears(model, c, info)
	}
	m, err := c.matchers(t)
	if err != nil {
		return nil, err
	}
	var excluded, unmatched int
	layer := "\x00" // below it are the tensors of adapters
	for path, module := range nn.NamedModules(model) {
		if path == "" || strings.HasPrefix(path, layer) {
			continue
		}
		switch module.(type) {
		case *nn.Linear, *nn.Embedding, *nn.Conv1d, *nn.Conv2d, *nn.Conv3d:
			layer = path + "."
		}
		if m.saves(path) && !slices.ContainsFunc(t.Save, func(s Target) bool { return strings.HasPrefix(path, s.Path+".") }) {
			t.Save = append(t.Save, Target{Path: path, Module: module})
		}
		switch {
		case m.exclude.match(path), m.keep(path):
			excluded++
		case !m.targets(path):
			unmatched++
		default:
			target := Target{Path: path, Module: module, R: m.rank.of(path, c.R.Or(8)), Alpha: m.alpha.of(path, c.LoraAlpha.Or(8))}
			target.Feedforward = m.feedforward(path)
			t.Layers = append(t.Layers, target)
		}
	}
	if len(t.Layers) == 0 {
		return nil, c.nothing(t.TargetModules, excluded, unmatched)
	}
	for _, s := range t.Save {
		if slices.ContainsFunc(t.Layers, func(l Target) bool { return l.Path == s.Path || strings.HasPrefix(l.Path, s.Path+".") }) {
			return nil, configError("modules_to_save", "modules without adapters", s.Path)
		}
	}
	t.warn(c, m, excluded)
	t.RankPattern = m.rank.inFile(t.Layers, func(t Target) int { return t.R }, c.R.Or(8), func(a, b int) bool { return a == b })
	t.AlphaPattern = m.alpha.inFile(t.Layers, func(t Target) float64 { return t.Alpha }, c.LoraAlpha.Or(8), func(a, b float64) bool { return a == b })
	return t, nil
}

// nothing says why no module got an adapter.
func (c *Config) nothing(names Names, excluded, unmatched int) error {
	e := &Error{Class: ErrMissingTensor, Detail: "target_modules " + names.String()}
	switch {
	case unmatched == 0:
		e.Actual, e.Remedy = "all modules of the model excluded", "check target_modules, exclude_modules and modules_to_save"
	case excluded == 0:
		e.Actual, e.Remedy = "no such module in the base model", "check target_modules, and whether this is the adapter's base model"
	default:
		e.Actual, e.Remedy = "no such module in the base model but excluded ones", "check target_modules, exclude_modules and modules_to_save"
	}
	if c.LayersToTransform != nil {
		e.Detail += fmt.Sprintf(", layers_to_transform %v", c.LayersToTransform)
	}
	if c.LayersPattern != nil {
		e.Detail += ", layers_pattern " + listed(c.LayersPattern)
	}
	return e
}

// warn notes what had no effect.
func (t *Targets) warn(c *Config, m *matchers, excluded int) {
	add := func(format string, args ...any) { t.Warnings = append(t.Warnings, fmt.Sprintf(format, args...)) }
	if !c.ExcludeModules.None() && (c.ExcludeModules.Pattern != "" || len(c.ExcludeModules.List) > 0) && excluded == 0 {
		add("exclude_modules excludes no module")
	}
	if unused := m.rank.unused(t.Layers); len(unused) > 0 {
		add("rank_pattern matches no target: %s", listed(unused))
	}
	if unused := m.alpha.unused(t.Layers); len(unused) > 0 {
		add("alpha_pattern matches no target: %s", listed(unused))
	}
	for _, name := range c.ModulesToSave {
		if !slices.ContainsFunc(t.Save, func(s Target) bool { return strings.HasSuffix(s.Path, name) }) {
			add("modules_to_save: no module's name ends with %s", quoted(name))
		}
	}
}

func (n Names) allLinear() bool { return strings.EqualFold(n.Pattern, "all-linear") }

func (n Names) String() string {
	if n.Pattern != "" {
		return quoted(n.Pattern)
	}
	return "[" + listed(n.List) + "]"
}

// linears are all linear layers but the model's output layer, or else a sequence classifier's head.
func linears(model any, c *Config, info ModelInfo) Names {
	head := info.OutputEmbeddings
	list := []string{}
	paths := map[string]bool{}
	for path, module := range nn.NamedModules(model) {
		paths[path] = true
		if _, ok := module.(*nn.Linear); ok {
			list = append(list, path)
		}
	}
	if head == "" && c.TaskType == "SEQ_CLS" {
		if head = "classifier"; paths["score"] {
			head = "score"
		}
	}
	return Names{List: slices.DeleteFunc(list, func(path string) bool { return path == head })}
}

// matchers are the compiled patterns of a config.
type matchers struct {
	target, exclude, forward nameMatcher
	save                     []string         // ends of names
	saved                    []*regexp.Regexp // of modules that adapters stay away from
	layers                   []int            // numbers; nil: all
	layersPattern            []*regexp.Regexp
	rank                     patternMatcher[int]
	alpha                    patternMatcher[float64]
}

func (c *Config) matchers(t *Targets) (m *matchers, err error) {
	m = &matchers{save: c.ModulesToSave}
	if m.target, err = t.TargetModules.compile("target_modules"); err != nil {
		return nil, err
	}
	if m.exclude, err = c.ExcludeModules.compile("exclude_modules"); err != nil {
		return nil, err
	}
	if m.forward, err = t.FeedforwardModules.compile("feedforward_modules"); err != nil {
		return nil, err
	}
	for _, name := range c.ModulesToSave {
		if name == "" {
			return nil, configError("modules_to_save", "names", `""`)
		}
		re, err := compile(`\A(?:(^|.*\.)`, name, `($|\..*))`)
		if err != nil {
			return nil, inDetail(err, "modules_to_save")
		}
		m.saved = append(m.saved, re)
	}
	if len(c.LayersToTransform) > 0 {
		m.layers = c.LayersToTransform
	}
	for _, name := range c.LayersPattern {
		re, err := compile(`\A(?:(?:^|.*?\.)`, name, `\.(?P<idx>\d+)\.)`)
		if err != nil {
			return nil, inDetail(err, "layers_pattern")
		}
		m.layersPattern = append(m.layersPattern, re)
	}
	if m.rank, err = newPatternMatcher("rank_pattern", c.RankPattern); err != nil {
		return nil, err
	}
	m.alpha, err = newPatternMatcher("alpha_pattern", c.AlphaPattern)
	return m, err
}

// keep reports whether a module is trained as a whole, or part of one, and so gets no adapter.
func (m *matchers) keep(path string) bool {
	return slices.ContainsFunc(m.saved, func(re *regexp.Regexp) bool { return re.MatchString(path) })
}

func (m *matchers) saves(path string) bool {
	return slices.ContainsFunc(m.save, func(name string) bool { return strings.HasSuffix(path, name) })
}

func (m *matchers) targets(path string) bool {
	if m.target.names[path] {
		return true
	}
	return m.target.match(path) && m.ofLayer(path)
}

// ofLayer reports whether a module is in one of the layers to transform.
func (m *matchers) ofLayer(path string) bool {
	if m.layers == nil {
		return true
	}
	number := ""
	if m.layersPattern == nil {
		parts := strings.Split(path, ".")
		for i := 2; i < len(parts)-1 && number == ""; i++ {
			if strings.Trim(parts[i], "0123456789") == "" {
				number = parts[i]
			}
		}
	}
	for _, re := range m.layersPattern {
		if found := re.FindStringSubmatch(path); found != nil {
			number = found[re.SubexpIndex("idx")]
			break
		}
	}
	n, err := strconv.Atoi(number)
	return err == nil && slices.Contains(m.layers, n)
}

// feedforward: peft compares ends of names here, without a dot before them.
func (m *matchers) feedforward(path string) bool {
	if m.forward.re != nil {
		return m.forward.match(path)
	}
	for name := range m.forward.names {
		if strings.HasSuffix(path, name) {
			return true
		}
	}
	return false
}

// nameMatcher is compiled Names.
type nameMatcher struct {
	re    *regexp.Regexp
	names map[string]bool
}

func (n Names) compile(key string) (m nameMatcher, err error) {
	if n.Pattern != "" && n.List != nil {
		return m, configError(key, "a pattern or a list", "both")
	}
	if n.Pattern != "" {
		m.re, err = fullMatch(n.Pattern)
		return m, inDetail(err, key)
	}
	m.names = make(map[string]bool, len(n.List))
	for _, name := range n.List {
		m.names[name] = true
	}
	return m, nil
}

// match reports whether the expression matches the whole path, or the path or an end of it after a dot is listed.
func (m nameMatcher) match(path string) bool {
	if m.re != nil {
		return m.re.MatchString(path)
	}
	for rest, found := path, true; found; _, rest, found = strings.Cut(rest, ".") {
		if m.names[rest] {
			return true
		}
	}
	return false
}

// patternMatcher is a compiled rank_pattern or alpha_pattern.
type patternMatcher[T any] struct {
	patterns []Pattern[T]
	matches  []func(path string) bool
}

func newPatternMatcher[T any](key string, patterns []Pattern[T]) (m patternMatcher[T], err error) {
	m.patterns = patterns
	total := 0
	for _, p := range patterns {
		if plain, ok := parsePlain(p.Name); ok {
			m.matches = append(m.matches, plain.match)
			continue
		}
		if total += len(p.Name); total > maxExpression {
			return m, configError(key, fmt.Sprintf("expressions of at most %d characters in all", maxExpression), "more")
		}
		re, err := compile(`\A(?:(.*\.)?(`, p.Name, `)$)`)
		if err != nil {
			return m, inDetail(err, key)
		}
		m.matches = append(m.matches, re.MatchString)
	}
	return m, nil
}

// of is the value of the first pattern that matches.
func (m patternMatcher[T]) of(path string, other T) T {
	for i, match := range m.matches {
		if match(path) {
			return m.patterns[i].Value
		}
	}
	return other
}

// unused are the patterns that match no target.
func (m patternMatcher[T]) unused(targets []Target) (names []string) {
	for i, match := range m.matches {
		if !slices.ContainsFunc(targets, func(t Target) bool { return match(t.Path) }) {
			names = append(names, m.patterns[i].Name)
		}
	}
	slices.Sort(names)
	return names
}

// plainPattern is a pattern without special characters but dots, of which one with a backslash is itself, and a ^ before
// it. Files often have one of them for each module, so matching them must be quick.
type plainPattern struct {
	anchored bool
	text     string // 0 is any character
}

func parsePlain(s string) (p plainPattern, ok bool) {
	s, p.anchored = strings.CutPrefix(s, "^")
	text := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '.':
			text = append(text, 0)
		case strings.HasPrefix(s[i:], `\.`):
			text = append(text, '.')
			i++
		case c == '_', c == '-', c|0x20 >= 'a' && c|0x20 <= 'z', c >= '0' && c <= '9':
			text = append(text, c)
		default:
			return p, false
		}
	}
	p.text = string(text)
	return p, true
}

// match reports whether path ends with p, after a dot or from the beginning.
func (p plainPattern) match(path string) bool {
	at := len(path) - len(p.text)
	if at < 0 || at > 0 && (p.anchored || path[at-1] != '.') {
		return false
	}
	for i := len(p.text) - 1; i >= 0; i-- {
		if p.text[i] != 0 && p.text[i] != path[at+i] {
			return false
		}
	}
	return true
}

// inFile gives patterns an order that a file keeps: peft sorts them by name, and the first that matches counts. Where
// that would change the value of a target, they become one for each target that does not have the default.
func (m patternMatcher[T]) inFile(targets []Target, value func(Target) T, other T, same func(a, b T) bool) []Pattern[T] {
	sorted := patternMatcher[T]{patterns: slices.Clone(m.patterns), matches: slices.Clone(m.matches)}
	sort.Stable(byName[T](sorted))
	if !slices.ContainsFunc(targets, func(t Target) bool { return !same(sorted.of(t.Path, other), value(t)) }) {
		return m.patterns
	}
	list := []Pattern[T]{}
	for _, t := range targets {
		if v := value(t); !same(v, other) {
			list = append(list, Pattern[T]{"^" + regexp.QuoteMeta(t.Path), v})
		}
	}
	return list
}

type byName[T any] patternMatcher[T]

func (b byName[T]) Len() int           { return len(b.patterns) }
func (b byName[T]) Less(i, j int) bool { return b.patterns[i].Name < b.patterns[j].Name }
func (b byName[T]) Swap(i, j int) {
	b.patterns[i], b.patterns[j] = b.patterns[j], b.patterns[i]
	b.matches[i], b.matches[j] = b.matches[j], b.matches[i]
}
