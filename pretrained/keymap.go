package pretrained

import (
	"regexp"
	"strings"
)

// keyMap turns the names of a checkpoint into those of a model.
type keyMap struct {
	rules  []compiledRule
	prefix string                // base_model_prefix
	known  func(key string) bool // whether the model has such an entry
}

type compiledRule struct {
	re          *regexp.Regexp
	replacement string
}

// legacyRules are renamings that old files need whatever the model.
var legacyRules = []compiledRule{
	{regexp.MustCompile(`LayerNorm\.gamma`), "LayerNorm.weight"},
	{regexp.MustCompile(`LayerNorm\.beta`), "LayerNorm.bias"},
	{regexp.MustCompile(`\.weight_g$`), ".parametrizations.weight.original0"},
	{regexp.MustCompile(`\.weight_v$`), ".parametrizations.weight.original1"},
	{regexp.MustCompile(`^(model\.language_model\.model|language_model\.model\.model)`), "model.language_model"},
}

// pythonGroup is a group in a replacement as Python writes it.
var pythonGroup = regexp.MustCompile(`\\(\d+)`)

// newKeyMap compiles the caller's rules, which come before all others.
func newKeyMap(rules []KeyRule, prefix string, known func(string) bool) *keyMap {
	m := &keyMap{prefix: prefix, known: known}
	for _, r := range rules {
		literal := strings.ReplaceAll(r.Replacement, "$", "$$")
		m.rules = append(m.rules, compiledRule{regexp.MustCompile(r.Pattern), pythonGroup.ReplaceAllString(literal, "$${$1}")})
	}
	m.rules = append(m.rules, legacyRules...)
	return m
}

// rename applies all renamings in turn, then adds or strips the base model's prefix where the result is a
// name of the model. A name that the model knows as it is stays when its new form is unknown.
func (m *keyMap) rename(key string) string {
	name := key
	for _, r := range m.rules {
		name = r.apply(name)
	}
	if m.prefix != "" {
		if bare, ok := strings.CutPrefix(name, m.prefix+"."); ok && m.known(bare) {
			name = bare
		} else if m.known(m.prefix + "." + name) {
			name = m.prefix + "." + name
		}
	}
	if name != key && !m.known(name) && m.known(key) {
		return key
	}
	return name
}

func (r compiledRule) apply(name string) string {
	at := r.re.FindStringSubmatchIndex(name)
	if at == nil {
		return name
	}
	return name[:at[0]] + string(r.re.ExpandString(nil, r.replacement, name, at)) + name[at[1]:]
}
