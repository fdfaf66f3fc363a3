package pretrained

import (
	"fmt"
	"sync"

	"github.com/torchgo/torchgo/internal/xlog"
	"github.com/torchgo/torchgo/torch"
)

var warned sync.Map // texts that were logged

// warnOnce logs a warning that was not logged before.
func warnOnce(text string) {
	if _, before := warned.LoadOrStore(text, true); !before {
		xlog.Logger().Warn(text)
	}
}

// WarnIfPaddingAndNoAttentionMask logs a warning, once, where inputIDs (B, T) begin or end with the padding token
// and there is no mask (warn_if_padding_and_no_attention_mask).
func (p *PreTrainedModel) WarnIfPaddingAndNoAttentionMask(inputIDs, mask *torch.Tensor) {
	pad := configToken(p.config, "pad_token_id")
	if mask != nil || pad == nil || inputIDs.Numel() == 0 {
		return
	}
	padded := false
	torch.Scope(func() {
		for _, at := range []int{-1, 0} {
			padded = padded || torch.Item[bool](inputIDs.Select(1, at).EqScalar(*pad).Any())
		}
	})
	if !padded {
		return
	}
	text := "pass an attention_mask: input_ids begin or end with the padding token, and padding that is not masked changes the results"
	for _, key := range []string{"bos_token_id", "eos_token_id", "sep_token_id"} {
		if id := configToken(p.config, key); id != nil && *id == *pad {
			text += fmt.Sprintf("; ignore this if nothing is padded: %s is pad_token_id (%d)", key, *pad)
		}
	}
	warnOnce(text)
}
