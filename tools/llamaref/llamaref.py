"""Writes reference data for Llama that refs/models does not cover: options, heads, losses, RoPE, configs.

Usage:  python tools/llamaref/llamaref.py OUT_DIR
        go run ./tools/pack OUT_DIR testdata/llama.tar.zst
Needs:  torch 2.15.0, transformers 5.23.0, safetensors (CPU). Seeded; the same versions give the same bytes.

- a folder a case, as those of models-llama (config.json, model.safetensors, inputs.json, expected.safetensors with
  outputs, hidden states, loss, grad_norm and the embeddings' gradient, in eager attention, without a cache)
- rope.json: inverse frequencies and attention factors for many rope_parameters, and of modules that see
  sequences of several lengths; what transformers says of bad ones
- losses.json: LOSS_MAPPING's losses of given logits and labels
- blocks.json: RMSNorm, rotation and eager attention in half precision
- configs/: config.json files and what save_pretrained makes of them, beside one model.safetensors; built.json is that
  of a model made from LlamaConfig(...)
- biases/autocast.safetensors: what that case gives under autocast to bfloat16
"""
import json
import math
import os
import re
import shutil
import sys
import zlib

import torch
import transformers as tf
from safetensors.torch import save_file
from transformers.loss.loss_utils import LOSS_MAPPING
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama import modeling_llama as llama

torch.set_num_threads(1)
tf.logging.set_verbosity_error()

SIZES = dict(vocab_size=40, pad_token_id=0, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, intermediate_size=24, max_position_embeddings=32)


def ints(g, *shape, lo=1, hi=40):
    return torch.randint(lo, hi, shape, generator=g)


def padded(g, b, t, left=False):
    ids, mask = ints(g, b, t), torch.ones(b, t, dtype=torch.long)
    part = slice(None, 3) if left else slice(-3, None)
    ids[-1, part], mask[-1, part] = 0, 0
    return {"input_ids": ids, "attention_mask": mask}


def lm(g, b=2, t=8):
    return {"labels": ints(g, b, t)}


def masked(labels, n=4):
    labels["labels"][-1, :n] = -100  # what padding predicts is unspecified
    return labels


def embeds(g, b=2, t=6):
    return {"inputs_embeds": torch.randint(-8, 9, (b, t, 16), generator=g) / 8.0}


def tree(t):  # two branches after a common beginning, as speculative decoding has
    see = torch.ones(t, t).tril() > 0
    see[t // 2 + 1:, t // 2] = False
    return torch.where(see, 0.0, torch.finfo(torch.float32).min)[None, None].expand(2, 1, t, t).contiguous()


LONG = {"rope_type": "longrope", "original_max_position_embeddings": 8, "short_factor": [1.0, 1.25], "long_factor": [2.0, 4.5]}
CLM = ("LlamaForCausalLM", "AutoModelForCausalLM")
SEQ = ("LlamaForSequenceClassification", "AutoModelForSequenceClassification")
TOK = ("LlamaForTokenClassification", "AutoModelForTokenClassification")
QA = ("LlamaForQuestionAnswering", "AutoModelForQuestionAnswering")

# name: class, config, inputs, labels[, arguments of the call, keys of config.json that are added]; with "both", what
# sdpa attention gives is recorded, too, under names with "sdpa." before
CASES = {
    "base": (("LlamaModel", "AutoModel"), {}, lambda g: padded(g, 2, 8), None, {"output_attentions": True}),
    "biases": (CLM, {"attention_bias": True, "mlp_bias": True}, lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "head-dim": (CLM, {"head_dim": 6, "rms_norm_eps": 1e-3}, lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "kv-1": (CLM, {"num_key_value_heads": 1}, lambda g: padded(g, 2, 8), lm, {"output_attentions": True}),
    "kv-all": (CLM, {"num_key_value_heads": None, "tie_word_embeddings": True}, lambda g: {"input_ids": ints(g, 2, 8)}, lm,
               {"output_attentions": True}),
    "act": (CLM, {"hidden_act": "gelu_pytorch_tanh", "num_hidden_layers": 1, "pad_token_id": -1}, lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "theta": (CLM, {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}, lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "partial": (CLM, {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}},
                lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "proportional": (CLM, {"head_dim": 8, "rope_parameters": {"rope_type": "proportional", "rope_theta": 100.0, "partial_rotary_factor": 0.5}},
                     lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "longrope-short": (CLM, {"rope_parameters": LONG}, lambda g: {"input_ids": ints(g, 2, 8)}, lm),
    "longrope-long": (CLM, {"rope_parameters": LONG}, lambda g: {"input_ids": ints(g, 2, 9)}, lambda g: lm(g, 2, 9)),
    "yarn-mscale": (CLM, {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "original_max_position_embeddings": 8,
                                              "mscale": 0.7, "mscale_all_dim": 1.2, "beta_fast": 8, "truncate": False}},
                    lambda g: {"input_ids": ints(g, 2, 12)}, lambda g: lm(g, 2, 12)),
    "dynamic-long": (CLM, {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", "factor": 3.0, "rope_theta": 100.0}},
                     lambda g: {"input_ids": ints(g, 1, 20)}, lambda g: lm(g, 1, 20)),
    "old-linear": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 8)}, lm, {},
                   {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}, "rope_theta": 200.0}),
    "left": (CLM, {}, lambda g: padded(g, 2, 8, left=True), lambda g: masked(lm(g)), {"output_attentions": True}),
    "left-predicts": (CLM, {"num_hidden_layers": 1}, lambda g: padded(g, 2, 6, left=True), lambda g: lm(g, 2, 6), {"both": True}),
    "right": (CLM, {}, lambda g: padded(g, 2, 8), lm),
    "positions": (CLM, {}, lambda g: {**padded(g, 2, 6), "position_ids": torch.tensor([[3, 4, 5, 6, 7, 8], [0, 2, 4, 6, 8, 10]])}, None),
    "packed": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 7), "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5, 6]])},
               lambda g: lm(g, 2, 7), {"output_attentions": True}),
    "embeds": (CLM, {}, embeds, lambda g: lm(g, 2, 6)),
    "mask-4d": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 6), "attention_mask": tree(6),
                                    "position_ids": torch.tensor([[0, 1, 2, 3, 3, 4]])}, lambda g: lm(g, 2, 6)),
    "items": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 8)}, lm, {"num_items_in_batch": 23}),
    "shifted": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 8)}, lambda g: {**lm(g), "shift_labels": ints(g, 2, 8)}),
    "keep": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 8)}, None, {"logits_to_keep": 3}),
    "untied-last": (CLM, {}, lambda g: {"input_ids": ints(g, 2, 8)}, None, {}, {"tie_last_hidden_states": False}),
    "bidirectional": (CLM, {"is_causal": False}, lambda g: padded(g, 2, 6), None, {"output_attentions": True}),
    "bidirectional-full": (CLM, {"is_causal": False}, lambda g: {"input_ids": ints(g, 2, 6)}, lambda g: lm(g, 2, 6)),
    "regression": (SEQ, {"num_labels": 1}, lambda g: padded(g, 3, 7, left=True), lambda g: {"labels": torch.tensor([0.5, -1.25, 2.0])}),
    "multi-label": (SEQ, {"num_labels": 4}, lambda g: padded(g, 2, 7), lambda g: {"labels": torch.tensor([[0.0, 1, 1, 0], [1, 0, 0, 0]])}),
    "one-sequence": (SEQ, {"num_labels": 3, "pad_token_id": None}, lambda g: {"input_ids": ints(g, 1, 7)}, lambda g: {"labels": torch.tensor([2])}),
    "seq-embeds": (SEQ, {"num_labels": 3}, embeds, lambda g: {"labels": torch.tensor([2, 0])}),
    "tokens": (TOK, {"num_labels": 5}, lambda g: padded(g, 2, 7), lambda g: {"labels": torch.tensor([[0, 1, 2, 3, 4, -100, 0], [4, 3, 2, 1, -100, -100, -100]])}),
    "tokens-no-bias": (TOK, {"num_labels": 3, "token_classification_bias": False}, lambda g: padded(g, 2, 7), None),
    "answers": (QA, {}, lambda g: {"input_ids": ints(g, 3, 6)},
                lambda g: {"start_positions": torch.tensor([[1], [9], [3]]), "end_positions": torch.tensor([[2], [5], [99]])}, {"num_items_in_batch": 5}),
    "bfloat16": (CLM, {"attention_bias": True, "rope_parameters": LONG, "dtype": "bfloat16"}, lambda g: {"input_ids": ints(g, 2, 9)}, lambda g: lm(g, 2, 9)),
    "float16": (CLM, {"attention_bias": True, "rope_parameters": LONG, "dtype": "float16"}, lambda g: {"input_ids": ints(g, 2, 9)}, lambda g: lm(g, 2, 9)),
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
    return {k: v.detach().float().contiguous().clone() for k, v in found.items()}


def randomise(model, g):
    with torch.no_grad():
        for name, p in model.named_parameters():
            base = 1.0 if "norm" in name else 0.0
            values = (0.1 if p.ndim == 1 else 0.3) * torch.randn(p.shape, generator=g)
            p.copy_(base + torch.round(values * 64) / 64)  # few digits: small files
    model.tie_weights()


def edit(folder, **keys):
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    for k, v in keys.items():
        if v is None:
            config.pop(k, None)
        else:
            config[k] = v
    with open(path, "w") as f:
        f.write(json.dumps(config, indent=2, sort_keys=True) + "\n")


def compute(model, given, wanted, call, items):
    with torch.no_grad():
        expected = outputs(model(**given, output_hidden_states=True, use_cache=False, **call))
    if wanted:
        extra = {} if items is None else {"num_items_in_batch": items}
        loss = model(**given, **wanted, use_cache=False, **extra).loss
        loss.backward()
        grads = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        expected["loss"] = loss.detach().reshape(1)
        if model.dtype == torch.float32:
            expected["grad_norm"] = torch.sqrt(sum((v.double() ** 2).sum() for v in grads.values())).float().reshape(1)
            for name, v in grads.items():
                if "embed_tokens" in name or "layers.0.self_attn.k_proj" in name:
                    expected["grad." + name] = v.contiguous()
    return expected


def make(folder, classes, config, inputs, labels, call={}, keys={}):
    g = torch.Generator().manual_seed(zlib.crc32(os.path.basename(folder).encode()))
    torch.manual_seed(0)
    cls, auto = classes
    config = dict(config)
    dtype = config.pop("dtype", "float32")
    model = getattr(tf, cls)(tf.LlamaConfig(**{**SIZES, **config})).eval()
    randomise(model, g)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    if os.path.exists(os.path.join(folder, "generation_config.json")):
        os.remove(os.path.join(folder, "generation_config.json"))
    edit(folder, **keys)
    call = dict(call)
    both, items = call.pop("both", dtype != "float32"), call.pop("num_items_in_batch", None)
    given, wanted = inputs(g), labels(g) if labels else None
    expected = {}
    for attention in ("eager", "sdpa") if both else ("eager",):
        model = getattr(tf, auto).from_pretrained(folder, attn_implementation=attention)
        assert type(model).__name__ == cls and model.dtype == getattr(torch, dtype), type(model)
        found = compute(model, given, wanted, call, items)
        expected |= found if attention == "eager" else {"sdpa." + k: v for k, v in found.items()}
    save_file(expected, os.path.join(folder, "expected.safetensors"))
    with open(os.path.join(folder, "inputs.json"), "w") as f:
        json.dump({"class": cls, "auto_class": auto, "tied_weights": dict(model.all_tied_weights_keys), "dtype": dtype,
                   "num_parameters": model.num_parameters(), "memory_footprint": model.get_memory_footprint(),
                   "attentions": bool(call.get("output_attentions")), "logits_to_keep": call.get("logits_to_keep", 0),
                   "num_items_in_batch": items or 0, "inputs": {k: plain(v) for k, v in given.items()},
                   "labels": {k: plain(v) for k, v in wanted.items()} if wanted else None}, f, separators=(",", ":"))


ROPES = {
    "default": [{}, {"rope_theta": 500000.0}, {"rope_theta": 10000}],
    "linear": [{"factor": 2.0}, {"factor": 3}, {"factor": 2.5, "rope_theta": 1e6, "partial_rotary_factor": 0.5}],
    "dynamic": [{"factor": 2.0}, {"factor": 8.0, "rope_theta": 500000.0}, {"factor": 1.0}, {"factor": 4.0, "partial_rotary_factor": 0.75}],
    "proportional": [{}, {"partial_rotary_factor": 0.25}, {"partial_rotary_factor": 0.3, "factor": 2.0, "rope_theta": 1e6}],
    "yarn": [{"factor": 4.0, "original_max_position_embeddings": 1024},
             {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0},
             {"factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707, "mscale_all_dim": 1.1, "beta_fast": 24, "beta_slow": 2},
             {"factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False, "rope_theta": 150000},
             {"factor": None, "original_max_position_embeddings": 512}, {"factor": 0.5, "original_max_position_embeddings": 4096},
             {"factor": 4.0, "attention_factor": 0.8}, {"factor": 4.0, "beta_fast": 1, "beta_slow": 1, "original_max_position_embeddings": 64},
             {"factor": 4.0, "original_max_position_embeddings": 1024, "partial_rotary_factor": 0.5, "mscale": 0.5}],
    "longrope": [{"original_max_position_embeddings": 1024}, {"original_max_position_embeddings": 1024, "factor": 32.0},
                 {"original_max_position_embeddings": 1024, "attention_factor": 1.25}, {"original_max_position_embeddings": 8192},
                 {"original_max_position_embeddings": 2048, "partial_rotary_factor": 0.5, "rope_theta": 1e5}],
    "llama3": [{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 500000.0},
               {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192, "rope_theta": 500000.0},
               {"factor": 8, "low_freq_factor": 2, "high_freq_factor": 9, "original_max_position_embeddings": 256, "partial_rotary_factor": 0.5}],
}
BAD_ROPES = [
    {"rope_type": "linear"}, {"rope_type": "dynamic"}, {"rope_type": "yarn"}, {"rope_type": "longrope", "short_factor": [1.0] * 4},
    {"rope_type": "llama3", "factor": 2.0}, {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 1.0}, {"type": "linear"},
    {"rope_type": "su", "factor": 2.0}, {"rope_type": None}, {"rope_type": "linear", "factor": "2"}, {"rope_type": "linear", "factor": 2.0, "rope_theta": None},
    {"rope_type": "linear", "factor": 0.0}, {"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5},
    {"rope_type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 4}, {"rope_type": "longrope", "short_factor": 1.0, "long_factor": 1.0},
    {"rope_type": "llama3", "factor": 2.0, "low_freq_factor": 0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8},
]


def float32s(t):
    assert t.dtype == torch.float32, t.dtype
    return t.tolist()


def ropes():
    out = {"functions": [], "modules": [], "bad": []}
    for kind, variants in ROPES.items():
        for v in variants:
            for head_dim in (64, 96, 128):
                params = {"rope_type": kind, "rope_theta": 10000.0, **v}
                if kind == "longrope":
                    n = int(head_dim * v.get("partial_rotary_factor", 1.0)) // 2
                    params |= {"short_factor": [1.0 + i / 64 for i in range(n)], "long_factor": [1.0 + i * 0.7 for i in range(n)]}
                config = tf.LlamaConfig(hidden_size=head_dim * 2, num_attention_heads=2, max_position_embeddings=4096, rope_parameters=dict(params))
                fn = ROPE_INIT_FUNCTIONS.get(kind, llama.LlamaRotaryEmbedding.compute_default_rope_parameters)
                for length in (None, 100, 4096, 5000, 100000) if kind in ("dynamic", "longrope") else (None,):
                    seen = torch.tensor(length) if kind == "dynamic" and length else length  # what the module passes
                    inv_freq, factor = fn(config, seq_len=seen)
                    out["functions"].append({"parameters": params, "head_dim": head_dim, "positions": 4096, "length": length or 0,
                                             "inv_freq": float32s(inv_freq), "attention_factor": float(factor)})
    # A module sees sequences one after the other.
    for params in ({"rope_type": "dynamic", "factor": 3.0, "rope_theta": 10000.0},
                   {"rope_type": "longrope", "original_max_position_embeddings": 12, "short_factor": [1.0, 1.5, 2.0, 2.5],
                    "long_factor": [3.0, 3.5, 4.0, 4.5], "rope_theta": 10000.0},
                   {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8,
                    "rope_theta": 10000.0}):
        config = tf.LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=16, rope_parameters=dict(params))
        module, steps = llama.LlamaRotaryEmbedding(config), []
        for length in (4, 16, 17, 40, 20, 30, 41, 16, 15, 18, 3, 12, 13):
            cos, sin = module(torch.zeros(1, length, 16), torch.arange(length)[None])
            steps.append({"length": length, "inv_freq": float32s(module.inv_freq), "cos": float32s(cos[0, -1]), "sin": float32s(sin[0, -1])})
        out["modules"].append({"parameters": params, "head_dim": 8, "positions": 16, "steps": steps})
    for params in BAD_ROPES:
        try:
            config = tf.LlamaConfig(hidden_size=16, num_attention_heads=2, max_position_embeddings=16, rope_parameters=dict(params))
            model = llama.LlamaModel(tf.LlamaConfig(hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=8,
                                                    max_position_embeddings=16, rope_parameters=dict(params)))
            last = model(torch.tensor([[1, 2]])).last_hidden_state
            problem, missing = ("" if torch.isfinite(last).all() else "not finite"), []
        except Exception as e:
            problem = type(e).__name__
            missing = sorted(re.findall(r"'(\w+)'", str(e).split(": ")[-1])) if "Missing required keys" in str(e) else []
        out["bad"].append({"parameters": params, "problem": problem, "missing": missing})
    return out


def losses():
    g = torch.Generator().manual_seed(7)
    logits = torch.randint(-64, 65, (2, 5, 6), generator=g) / 16.0
    labels = torch.randint(0, 6, (2, 5), generator=g)
    some, none = labels.clone(), torch.full((2, 5), -100)
    some[0, 1], some[1, 3:] = -100, -100
    config = lambda n, problem=None: tf.LlamaConfig(num_labels=n, problem_type=problem)
    found = []

    def add(kind, args, kwargs={}, **settings):
        for dtype in ("float32", "bfloat16", "float16"):
            cast = [a.to(getattr(torch, dtype)) if a.is_floating_point() and i < (2 if kind == "ForQuestionAnswering" else 1) else a
                    for i, a in enumerate(args)]
            if kind == "ForSequenceClassification":
                if cast[1].is_floating_point():
                    cast[1] = cast[1].to(getattr(torch, dtype))
                loss = LOSS_MAPPING[kind](cast[1], cast[0], config(settings["labels"], settings.get("problem")))
            elif kind == "ForTokenClassification":
                loss = LOSS_MAPPING[kind](*cast, config(args[0].shape[-1]), **kwargs)
            elif kind == "ForQuestionAnswering":
                loss = LOSS_MAPPING[kind](*cast, **kwargs)
            else:
                loss = LOSS_MAPPING[kind](*cast, vocab_size=6, **kwargs)
            found.append({"kind": kind, "dtype": dtype, "args": [plain(a.float() if a.is_floating_point() else a) for a in args],
                          "num_items_in_batch": kwargs.get("num_items_in_batch", 0), "problem": settings.get("problem", ""),
                          "shift_labels": plain(kwargs["shift_labels"]) if "shift_labels" in kwargs else None,
                          "loss": plain(loss.float()), "loss_dtype": str(loss.dtype).removeprefix("torch.")})

    for kind in ("ForCausalLM", "ForMaskedLM", "ForTokenClassification"):
        for y in (labels, some, none):
            add(kind, [logits, y])
            add(kind, [logits, y], {"num_items_in_batch": 7})
    add("ForCausalLM", [logits, labels], {"shift_labels": some})
    add("ForCausalLM", [logits, labels], {"shift_labels": some, "num_items_in_batch": 4})
    pooled, score = logits[:, 0], logits[:, 0, :1].contiguous()
    add("ForSequenceClassification", [pooled, torch.tensor([4, 1])], labels=6)
    add("ForSequenceClassification", [pooled, (pooled > 0).float()], labels=6)
    add("ForSequenceClassification", [score, torch.tensor([0.5, -1.5])], labels=1)
    add("ForSequenceClassification", [pooled, logits[:, 1]], labels=6, problem="regression")
    start, end = logits[:, :, 0].contiguous(), logits[:, :, 1].contiguous()
    for a, b in (([1, 4], [2, 3]), ([-3, 9], [5, 4]), ([5, 77], [9, 5])):
        add("ForQuestionAnswering", [start, end, torch.tensor(a), torch.tensor(b)])
        add("ForQuestionAnswering", [start, end, torch.tensor(a)[:, None], torch.tensor(b)[:, None]], {"num_items_in_batch": 3})
    return [{k: ("NaN" if k == "loss" and math.isnan(v["data"][0]) else v) for k, v in f.items()} for f in found]


def blocks():
    found = []
    for dtype in (torch.bfloat16, torch.float16):
        g = torch.Generator().manual_seed(11)
        x = (torch.randint(-40, 41, (2, 4, 16), generator=g) / 8.0).to(dtype)
        norm = llama.LlamaRMSNorm(16, 1e-5)
        norm.weight.data = 1 + torch.randint(-20, 21, (16,), generator=g) / 32.0
        norm = norm.to(dtype)
        config = tf.LlamaConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16)
        cos, sin = llama.LlamaRotaryEmbedding(config)(x, torch.arange(4)[None])
        q = x.view(2, 4, 2, 8).transpose(1, 2)
        turned, _ = llama.apply_rotary_pos_emb(q, q, cos, sin)
        k = q[:, :1] / 4
        attention = llama.LlamaAttention(config, 0).eval()
        y, weights = llama.eager_attention_forward(attention, q, k, k, None, 0.25)
        found.append({"dtype": str(dtype).removeprefix("torch."), **{name: plain(t.detach().float()) for name, t in dict(
            x=x, weight=norm.weight, norm=norm(x), cos=cos, sin=sin, turned=turned, k=k, y=y.reshape(2, 4, 16), weights=weights).items()}})
    return found


def autocast(folder):
    with open(os.path.join(folder, "inputs.json")) as f:
        case = json.load(f)
    given = {k: torch.tensor(v["data"]).reshape(v["shape"]) for k, v in {**case["inputs"], **case["labels"]}.items()}
    found = {}
    for attention in ("eager", "sdpa"):
        model = tf.LlamaForCausalLM.from_pretrained(folder, attn_implementation=attention)
        with torch.autocast("cpu", torch.bfloat16):
            out = model(**given, output_hidden_states=True, use_cache=False)
        out.loss.backward()
        found |= {f"{attention}.{k}": v for k, v in {**{f"hidden_states.{i}": h for i, h in enumerate(out.hidden_states)}, "logits": out.logits,
                  "loss": out.loss.reshape(1), "grad": model.model.embed_tokens.weight.grad}.items()}
    save_file({k: v.detach().contiguous().clone() for k, v in found.items()}, os.path.join(folder, "autocast.safetensors"))


CONFIGS = {
    "new": {},
    "old-null": {"rope_parameters": None, "rope_scaling": "null", "rope_theta": 500000.0, "torch_dtype": "float32", "dtype": None},
    "old-none": {"rope_parameters": None},
    "old-type": {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}},
    "old-llama3": {"rope_parameters": None, "rope_theta": 500000.0, "rope_scaling": {
        "factor": 8.0, "high_freq_factor": 4, "low_freq_factor": 1, "original_max_position_embeddings": 16, "rope_type": "llama3"}},
    "old-yarn": {"rope_parameters": None, "rope_scaling": {"rope_type": "yarn", "factor": 8.0}, "original_max_position_embeddings": 16},
    "both": {"rope_scaling": {"type": "dynamic", "factor": 2}},
    "longrope": {"rope_parameters": LONG},
    "ints": {"rope_parameters": {"factor": 2, "rope_theta": 10000, "rope_type": "linear", "unknown": [1, {"a": None}]}},
    "partial": {"partial_rotary_factor": 0.5, "rope_parameters": None, "rope_theta": 1000000.0},
    "nulls": {"head_dim": "null", "num_key_value_heads": "null", "attention_dropout": "null", "pretraining_tp": "null", "pad_token_id": "null",
              "eos_token_id": [2, 3]},
    "extras": {"classifier_dropout": 0.25, "tie_last_hidden_states": False, "output_hidden_states": True, "use_cache": False,
               "quantization": {"x": 1}, "temperature": 0.5},
}


def configs(folder):
    os.makedirs(folder)
    g = torch.Generator().manual_seed(5)
    model = tf.LlamaForCausalLM(tf.LlamaConfig(**{**SIZES, "num_hidden_layers": 1, "num_key_value_heads": 4}))
    randomise(model, g)
    base = os.path.join(folder, "base")
    model.save_pretrained(base)
    os.rename(os.path.join(base, "model.safetensors"), os.path.join(folder, "model.safetensors"))
    shutil.copy(os.path.join(base, "config.json"), os.path.join(folder, "built.json"))
    for name, keys in CONFIGS.items():
        case = os.path.join(folder, name)
        os.makedirs(case)
        shutil.copy(os.path.join(base, "config.json"), case)
        edit(case, **keys)
        path = os.path.join(case, "config.json")
        with open(path) as f:
            text = f.read().replace('"null"', "null")
        with open(path, "w") as f:
            f.write(text)
        os.symlink(os.path.abspath(os.path.join(folder, "model.safetensors")), os.path.join(case, "model.safetensors"))
        tf.AutoModelForCausalLM.from_pretrained(case).save_pretrained(case + "-saved")
        os.remove(os.path.join(case, "model.safetensors"))
        os.rename(os.path.join(case + "-saved", "config.json"), os.path.join(case, "saved.json"))
        shutil.rmtree(case + "-saved")
    shutil.rmtree(base)


if __name__ == "__main__":
    out = sys.argv[1]
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    for name, case in CASES.items():
        make(os.path.join(out, name), *case)
    for name, value in (("rope", ropes()), ("losses", losses()), ("blocks", blocks())):
        with open(os.path.join(out, name + ".json"), "w") as f:
            json.dump(value, f, separators=(",", ":"))
    autocast(os.path.join(out, "biases"))
    configs(os.path.join(out, "configs"))
