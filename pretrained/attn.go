package pretrained

import (
	"fmt"
	"slices"
	"strings"

	"github.com/torchgo/torchgo/torch/nn"
)

// attnNames are transformers' names of attention implementations and what stands for each here: libtorch's SDPA
// has the flash and the memory-efficient kernels of its own and picks one.
var attnNames = map[nn.AttentionKind]nn.AttentionKind{
	nn.Eager: nn.Eager, nn.SDPA: nn.SDPA,
	"flash_attention_2": nn.SDPA, "flash_attention_3": nn.SDPA, "flash_attention_4": nn.SDPA, "flex_attention": nn.SDPA,
	"bettertransformer": nn.SDPA,
}

// attention settles what a class runs with. Where another name stands for it, the notice says so.
func attention(asked nn.AttentionKind, class *Class, base *ConfigBase) (kind nn.AttentionKind, notice string, err error) {
	if asked == "" {
		if asked = base.attention(); asked != "" && attnNames[asked] == "" {
			e := badAttn(asked)
			e.Class, e.Detail = ErrBadConfig, "attn_implementation"
			return "", "", e
		}
	}
	if asked == "" {
		if class.NoSDPA || base.OutputAttentions {
			return nn.Eager, "", nil
		}
		return nn.SDPA, "", nil
	}
	kind, ok := attnNames[asked]
	switch {
	case !ok:
		return "", "", badAttn(asked)
	case kind == nn.SDPA && base.OutputAttentions:
		return "", "", &Error{Class: ErrArgument, Detail: "output_attentions with sdpa attention, which has no weights to give", Remedy: "use eager"}
	case kind == nn.SDPA && class.NoSDPA:
		return "", "", &Error{Class: ErrUnsupported, Detail: fmt.Sprintf("attention %s for %s", asked, class.Name), Remedy: "use eager"}
	case kind != asked:
		notice = fmt.Sprintf("attention %s is sdpa here, which has its kernels", asked)
	}
	return kind, notice, nil
}

// attention is what config.json asks for, as it may be under two names.
func (c *ConfigBase) attention() nn.AttentionKind {
	for _, key := range []string{"attn_implementation", "_attn_implementation"} {
		v := c.raw[key]
		if parts, ok := v.(map[string]any); ok { // by part of the model; "" is the rest
			v = parts[""]
		}
		if name, ok := v.(string); ok {
			return nn.AttentionKind(name)
		}
	}
	return ""
}

func badAttn(asked nn.AttentionKind) *Error {
	var names []string
	for name := range attnNames {
		names = append(names, string(name))
	}
	slices.Sort(names)
	return &Error{Class: ErrArgument, Detail: "attn", Expected: "one of " + strings.Join(names, ", "), Actual: fmt.Sprintf("%q", shorten(string(asked)))}
}

// SetAttnImplementation changes the attention implementation: see Options.Attn. It must not be called while the
// model runs.
func (p *PreTrainedModel) SetAttnImplementation(kind nn.AttentionKind) error {
	kind, _, err := attention(kind, p.class, p.config.Base())
	if err == nil {
		p.config.Base().Attn = kind
	}
	return err
}
