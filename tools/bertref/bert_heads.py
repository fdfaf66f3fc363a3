"""Writes reference cases for the BERT heads, losses and inputs that refs/models does not cover.

Usage:  python tools/bertref/bert_heads.py OUT_DIR
        go run ./tools/pack OUT_DIR testdata/bert-heads.tar.zst
        python tools/bertref/bert_heads.py OUT_DIR2 attentions
        go run ./tools/pack OUT_DIR2 testdata/bert-attentions.tar.zst
Needs:  torch 2.15.0, transformers 5.23.0, safetensors (CPU). Seeded; the same versions give the same bytes.

A case is a folder like those of models-bert: config.json, model.safetensors, inputs.json, expected.safetensors
(outputs, hidden states, loss, grad_norm and the gradients of the word embeddings, all in eager attention).
"""
import json
import os
import sys
import zlib

import torch
import transformers as tf
from safetensors.torch import save_file

torch.set_num_threads(1)
tf.logging.set_verbosity_error()

SIZES = dict(vocab_size=40, pad_token_id=0, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
             intermediate_size=24, max_position_embeddings=16, type_vocab_size=3)


def ints(g, *shape, lo=1, hi=40):
    return torch.randint(lo, hi, shape, generator=g)


def padded(g, *shape, left=False):
    ids, mask = ints(g, *shape), torch.ones(*shape, dtype=torch.long)
    part = (slice(None, 3) if left else slice(-3, None))
    ids[-1, ..., part], mask[-1, ..., part] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def after_padding(labels):
    labels[-1, :4] = -100  # what padding predicts is unspecified
    return labels


CASES = {
    "nsp": ("BertForNextSentencePrediction", "AutoModelForNextSentencePrediction", {},
            lambda g: padded(g, 2, 8), lambda g: {"labels": torch.tensor([1, 0])}),
    "multiple-choice": ("BertForMultipleChoice", "AutoModelForMultipleChoice", {},
                        lambda g: {**padded(g, 2, 3, 6), "token_type_ids": ints(g, 2, 3, 6, lo=0, hi=3)},
                        lambda g: {"labels": torch.tensor([2, 0])}),
    "lm-head": ("BertLMHeadModel", "AutoModelForCausalLM", {"is_decoder": True},
                lambda g: padded(g, 2, 9, left=True), lambda g: {"labels": after_padding(ints(g, 2, 9))}),
    "pretraining": ("BertForPreTraining", "AutoModelForPreTraining", {},
                    lambda g: padded(g, 2, 7), lambda g: {"labels": ints(g, 2, 7), "next_sentence_label": torch.tensor([0, 1])}),
    "regression": ("BertForSequenceClassification", "AutoModelForSequenceClassification", {"num_labels": 1},
                   lambda g: padded(g, 3, 8), lambda g: {"labels": torch.tensor([0.5, -1.25, 2.0])}),
    "regression-3": ("BertForSequenceClassification", "AutoModelForSequenceClassification",
                     {"num_labels": 3, "problem_type": "regression"},
                     lambda g: padded(g, 2, 8), lambda g: {"labels": torch.tensor([[0.5, -1.25, 2.0], [1.0, 0.0, -0.5]])}),
    "multi-label": ("BertForSequenceClassification", "AutoModelForSequenceClassification", {"num_labels": 4},
                    lambda g: padded(g, 2, 8), lambda g: {"labels": torch.tensor([[0.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])}),
    "qa-outside": ("BertForQuestionAnswering", "AutoModelForQuestionAnswering", {},
                   lambda g: {"input_ids": ints(g, 3, 6)},
                   lambda g: {"start_positions": torch.tensor([[1], [9], [3]]), "end_positions": torch.tensor([[2], [5], [99]])}),
    "embeds": ("BertForMaskedLM", "AutoModelForMaskedLM", {"tie_word_embeddings": False, "hidden_act": "gelu_new"},
               lambda g: {"inputs_embeds": torch.randint(-8, 9, (2, 5, 16), generator=g) / 8.0,
                          "position_ids": torch.tensor([[3, 4, 5, 6, 7], [0, 2, 4, 6, 8]])},
               lambda g: {"labels": ints(g, 2, 5)}),
    "mask-4d": ("BertModel", "AutoModel", {"hidden_act": "silu", "layer_norm_eps": 1e-5},
                lambda g: {"input_ids": ints(g, 2, 5), "token_type_ids": ints(g, 2, 5, lo=0, hi=3),
                           "attention_mask": torch.where(torch.ones(5, 5).tril() > 0, 0.0, torch.finfo(torch.float32).min)[None, None].expand(2, 1, 5, 5).contiguous()},
                None),
}
# What more there is: in an archive of its own, as other data is made of that of the cases above.
ATTENTIONS = {
    "attentions": ("BertLMHeadModel", "AutoModelForCausalLM", {"is_decoder": True},
                   lambda g: padded(g, 2, 6), lambda g: {"labels": ints(g, 2, 6)}, True),
}


def plain(t):
    return {"dtype": str(t.dtype).removeprefix("torch."), "shape": list(t.shape), "data": t.flatten().tolist()}


def outputs(out):
    found = {}
    for name, value in out.items():
        if isinstance(value, tuple):
            found.update({f"{name}.{i}": v for i, v in enumerate(value)})
        elif isinstance(value, torch.Tensor) and name != "loss":
            found[name] = value
    return {k: v.detach().float().contiguous().clone() for k, v in found.items() if k != "past_key_values"}


def make(folder, cls, auto, config, inputs, labels, attentions=False):
    g = torch.Generator().manual_seed(zlib.crc32(os.path.basename(folder).encode()))
    torch.manual_seed(0)
    model = getattr(tf, cls)(tf.BertConfig(**{**SIZES, **config}))
    with torch.no_grad():
        for name, p in model.named_parameters():
            base = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            p.copy_(base + (0.1 if p.ndim == 1 else 0.4) * torch.randn(p.shape, generator=g))
    model.tie_weights()
    model.save_pretrained(folder)
    model = getattr(tf, auto).from_pretrained(folder, attn_implementation="eager")
    assert type(model).__name__ == cls, type(model)
    given, wanted = inputs(g), labels(g) if labels else None
    with torch.no_grad():
        out = model(**given, output_hidden_states=True, output_attentions=attentions, **({"use_cache": False} if config.get("is_decoder") else {}))
    expected = outputs(out)
    if wanted:
        loss = model(**given, **wanted).loss
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        expected["loss"] = loss.detach().reshape(1)
        expected["grad_norm"] = torch.sqrt(sum((v.double() ** 2).sum() for v in grads.values())).float().reshape(1)
        for name in ("bert.embeddings.word_embeddings.weight", "bert.embeddings.position_embeddings.weight"):
            if name in grads:
                expected["grad." + name] = grads[name].contiguous()
    save_file(expected, os.path.join(folder, "expected.safetensors"))
    with open(os.path.join(folder, "inputs.json"), "w") as f:
        json.dump({"class": cls, "auto_class": auto, "tied_weights": dict(model.all_tied_weights_keys),
                   "num_parameters": model.num_parameters(), "memory_footprint": model.get_memory_footprint(),
                   **({"attentions": True} if attentions else {}),
                   "inputs": {k: plain(v) for k, v in given.items()},
                   "labels": {k: plain(v) for k, v in wanted.items()} if wanted else None}, f, separators=(",", ":"))


if __name__ == "__main__":
    for name, case in (CASES if len(sys.argv) == 2 else ATTENTIONS).items():
        folder = os.path.join(sys.argv[1], name)
        os.makedirs(folder, exist_ok=True)
        make(folder, *case)
