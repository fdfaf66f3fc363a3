package pretrained

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch/nn"
)

// keyMap turns the names of a checkpoint into those of a model: all renamings in turn, then at most one
// converter, then the prefix of the base model.
type keyMap struct {
	rules      []*rule
	converters []*converter
	prefix     string                // base_model_prefix
	known      func(key string) bool // whether the model has such an entry
}

// scope is a part of a model whose rules hold for the names below it alone. Checkpoints of the base model and
// of one with a head differ in the base model's prefix.
type scope struct{ path, base string }

// enter splits a name into the path of the scope, and what is below it.
func (s scope) enter(name string) (path, below string, ok bool) {
	if s.path == "" {
		return "", name, true
	}
	for _, path := range []string{s.base + "." + s.path + ".", s.path + "."} {
		if below, ok := strings.CutPrefix(name, strings.TrimPrefix(path, ".")); ok {
			return path, below, true
		}
	}
	return "", name, false
}

// rule is a renaming that can be applied.
type rule struct {
	KeyRule
	scope
	re          *regexp.Regexp
	replacement string
	used        bool // it has renamed something
}

// converter is a Converter whose names can be matched.
type converter struct {
	Converter
	scope
	sources []*regexp.Regexp
	used    bool
}

// legacyRules are renamings that old files need whatever the model.
var legacyRules = []KeyRule{
	{`LayerNorm\.gamma`, "LayerNorm.weight"},
	{`LayerNorm\.beta`, "LayerNorm.bias"},
	{`\.weight_g`, ".parametrizations.weight.original0"},
	{`\.weight_v`, ".parametrizations.weight.original1"},
	{`^model\.language_model\.model`, "model.language_model"},
	{`^language_model\.model\.model`, "model.language_model"},
}

var (
	pythonGroup = regexp.MustCompile(`\\(\d+)`) // a group in a replacement as Python writes it
	oneGroup    = regexp.MustCompile(`\([^?].*?\)`)
	endsWord    = regexp.MustCompile(`(^|[^\\])[A-Za-z0-9]$`)
	special     = regexp.MustCompile(`[\\*+?|\[\](){}^$]`)
)

// compile makes the rule usable. A pattern that ends in a letter or digit ends a word; "*." is any text.
func (r KeyRule) compile(s scope) (*rule, error) {
	re, err := regexp.Compile(wordEnd(strings.ReplaceAll(r.Pattern, "*.", `.*\.`)))
	if err != nil {
		return nil, err
	}
	literal := strings.ReplaceAll(strings.ReplaceAll(strings.TrimPrefix(r.Replacement, "^"), `\.`, "."), "$", "$$")
	return &rule{r, s, re, pythonGroup.ReplaceAllString(literal, "$${$1}"), false}, nil
}

func wordEnd(pattern string) string {
	if endsWord.MatchString(pattern) {
		return `(?:` + pattern + `)\b`
	}
	return pattern
}

// reverse is the rule from new names to old ones. One whose pattern has more to it than an anchor and one
// group, which the replacement repeats, has none.
func (r KeyRule) reverse() (KeyRule, bool) {
	old, anchored := strings.CutPrefix(r.Pattern, "^")
	group := oneGroup.FindString(old)
	if group != "" {
		old = strings.Replace(old, group, "\x00", 1)
	}
	old = strings.ReplaceAll(old, `\.`, ".")
	replacement := strings.ReplaceAll(strings.TrimPrefix(r.Replacement, "^"), `\.`, ".")
	if special.MatchString(old) || strings.Count(replacement, `\`) != strings.Count(old, "\x00") {
		return KeyRule{}, false
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Replace(replacement, `\1`, "\x00", 1)), "\x00", group)
	if anchored {
		pattern = "^" + pattern
	}
	return KeyRule{pattern, strings.Replace(old, "\x00", `\1`, 1)}, true
}

// apply renames what the rule is found in. It changes nothing of the rule, which saves of one model share.
func (r *rule) apply(name string) (renamed string, found bool) {
	path, below, ok := r.enter(name)
	if !ok {
		return name, false
	}
	at := r.re.FindStringSubmatchIndex(below)
	if at == nil {
		return name, false
	}
	return path + below[:at[0]] + string(r.re.ExpandString(nil, r.replacement, below, at)) + below[at[1]:], true
}

// compile makes the converter usable.
func (c Converter) compile(s scope) *converter {
	out := &converter{Converter: c, scope: s}
	for _, source := range c.Sources {
		literal, anchored := strings.CutPrefix(source, "^")
		pattern := strings.Replace(wordEnd(regexp.QuoteMeta(literal)), `\*`, `(\d+)`, 1)
		if anchored {
			pattern = "^" + pattern
		}
		out.sources = append(out.sources, regexp.MustCompile(pattern))
	}
	return out
}

// match is a name that a converter applies to.
type match struct {
	source        int    // of the converter's
	index         string // where the source has one
	before, after string // what is around the source in the name
}

// name puts one of the converter's patterns in the place of the source.
func (m match) name(pattern, index string) string {
	return m.before + strings.Replace(strings.TrimPrefix(pattern, "^"), "*", index, 1) + m.after
}

// match finds the source that a name has: of several the one that begins first, of those that begin at one place the
// longest.
func (c *converter) match(name string) (match, bool) {
	path, below, ok := c.enter(name)
	if !ok {
		return match{}, false
	}
	best, found, start := match{}, -1, 0
	for i, re := range c.sources {
		at := re.FindStringSubmatchIndex(below)
		if at == nil || found >= 0 && (at[0] > start || at[0] == start && len(c.Sources[i]) <= len(c.Sources[found])) {
			continue
		}
		best, found, start = match{source: i, before: path + below[:at[0]], after: below[at[1]:]}, i, at[0]
		if len(at) > 2 {
			best.index = below[at[2]:at[3]]
		}
	}
	return best, found >= 0
}

// newKeyMap collects the rules for the model of a class: the caller's, then the architecture's or the class's,
// then those of models inside it, then those for old files. The names of a GGUF file have rules of their own.
func newKeyMap(caller []KeyRule, m Model, g *GGUF, known func(string) bool) (*keyMap, error) {
	k := &keyMap{known: known}
	if m != nil {
		k.prefix = m.base().class.prefix(m.base().arch)
	}
	if err := k.add(caller, nil, scope{}); err != nil {
		return nil, err
	}
	if g != nil {
		return k, k.add(g.rules, g.Converters, scope{})
	}
	if m != nil {
		if err := k.addModels(m); err != nil {
			return nil, err
		}
	}
	return k, k.add(legacyRules, nil, scope{})
}

func (k *keyMap) add(rules []KeyRule, converters []Converter, s scope) error {
	for _, r := range rules {
		compiled, err := r.compile(s)
		if err != nil {
			return err
		}
		k.rules = append(k.rules, compiled)
	}
	for _, c := range converters {
		k.converters = append(k.converters, c.compile(s))
	}
	return nil
}

// addModels adds the rules of m and of the models inside it, each type of model once on the way down.
func (k *keyMap) addModels(m Model) error {
	seen := map[*Architecture][]string{}
	for path, module := range nn.NamedModules(m) {
		inner, ok := module.(Model)
		if !ok {
			continue
		}
		p := inner.base()
		above := func(other string) bool { return other == "" || strings.HasPrefix(path, other+".") }
		if slices.ContainsFunc(seen[p.arch], above) {
			continue
		}
		seen[p.arch] = append(seen[p.arch], path)
		s := scope{}
		if path != "" {
			s = scope{strings.TrimPrefix(strings.TrimPrefix(path, k.prefix), "."), k.prefix}
		}
		rules, converters := p.arch.Renamings, p.arch.Converters
		if p.class.Renamings != nil || p.class.Converters != nil {
			rules, converters = p.class.Renamings, p.class.Converters
		}
		if err := k.add(rules, converters, s); err != nil {
			return err
		}
	}
	return nil
}

// translated is what becomes of a name.
type translated struct {
	key string // in the model; of a converter the first target's
	by  *converter
	match
}

// rename applies the rules to a name of the checkpoint. A name that the model knows as it is stays when its new
// form is unknown.
func (k *keyMap) rename(name string) translated {
	t := translated{key: name}
	for _, r := range k.rules {
		renamed, found := r.apply(t.key)
		t.key, r.used = renamed, r.used || found
	}
	for _, c := range k.converters {
		if m, ok := c.match(t.key); ok {
			c.used = true
			t.by, t.match = c, m
			t.key = m.name(c.Targets[0], "0")
			break
		}
	}
	t.key = k.rebase(t.key)
	if t.key != name && !k.known(t.key) && k.known(name) {
		return translated{key: name}
	}
	return t
}

// rebase adds or strips the base model's prefix where the result is a name of the model.
func (k *keyMap) rebase(name string) string {
	if k.prefix == "" {
		return name
	}
	if bare, ok := strings.CutPrefix(name, k.prefix+"."); ok && k.known(bare) {
		return bare
	}
	if with := k.prefix + "." + name; k.known(with) {
		return with
	}
	return name
}

// fileRules turn the names of a model into those of the checkpoint that it came from.
type fileRules struct {
	rules      []*rule
	converters []*converter
}

// reverse gives the way back of the rules that were used, or of all.
func (k *keyMap) reverse(all bool) (back fileRules) {
	for _, r := range slices.Backward(k.rules) {
		if !r.used && !all {
			continue
		}
		if reversed, ok := r.KeyRule.reverse(); ok {
			if compiled, err := reversed.compile(r.scope); err == nil {
				back.rules = append(back.rules, compiled)
			}
		}
	}
	for _, c := range slices.Backward(k.converters) {
		if c.used || all {
			back.converters = append(back.converters, c.Reverse().compile(c.scope))
		}
	}
	return back
}

func (f fileRules) rename(name string) string {
	for _, r := range f.rules {
		name, _ = r.apply(name)
	}
	return name
}

// checkRules tells what is wrong with the declared rules of an architecture.
func checkRules(rules []KeyRule, converters []Converter) error {
	for _, r := range rules {
		if _, err := r.compile(scope{}); err != nil {
			return fmt.Errorf("renaming %q: %w", r.Pattern, err)
		}
	}
	for _, c := range converters {
		if err := c.validate(); err != nil {
			return err
		}
	}
	return nil
}
