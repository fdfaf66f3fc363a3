"""Writes what gguf-py reads, and transformers loads, in GGUF files that torchgo wrote: python judge.py DIR

Needs gguf 0.19, transformers 5.23.0, torch 2.15.0. The files come from
  TORCHGO_GGUF_WRITTEN=DIR go test ./pretrained/gguf -run TestWritten
  TORCHGO_GGUF_WRITTEN=DIR go test ./pretrained -run TestSaveGGUF
DIR/verdict.json: file -> {"sha256", "fields": [[key, types, value]], "tensors": [[name, type, shape, bytes, sha256]]}; for models
(model-*) in place of fields "info": what loading reported, "sd": sha256 of each tensor as float32, "config", "input_ids",
"logits" of the last position.
Put it into testdata/gguf.tar.zst as written.json.
"""
import hashlib, json, math, os, sys

import numpy as np
import torch
from gguf import GGUFReader
from transformers import AutoModelForCausalLM

d = sys.argv[1]


def plain(x):
    if isinstance(x, list):
        return [plain(e) for e in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


CONFIG = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim
max_position_embeddings rms_norm_eps tie_word_embeddings""".split()
verdict = {}
for name in sorted(os.listdir(d)):
    if not name.endswith(".gguf"):
        continue
    path = os.path.join(d, name)
    r = GGUFReader(path)
    if name.startswith("model-"):
        m, info = AutoModelForCausalLM.from_pretrained(d, gguf_file=name, output_loading_info=True)
        ids = torch.arange(5, 17)[None]
        with torch.no_grad():
            logits = m(input_ids=ids).logits[0, -1].float()
        verdict[name] = {
            "sha256": hashlib.sha256(open(path, "rb").read()).hexdigest(),
            "info": {k: len(v) for k, v in info.items()}, "config": {k: v for k, v in m.config.to_dict().items() if k in CONFIG},
            "sd": {k: hashlib.sha256(v.float().contiguous().numpy().tobytes()).hexdigest() for k, v in m.state_dict().items()},
            "input_ids": ids.tolist(), "logits": logits.tolist()}
        continue
    fields = [[k, [t.name for t in f.types], plain(f.contents())] for k, f in r.fields.items() if not k.startswith("GGUF.")]
    tensors = [[t.name, t.tensor_type.name, [int(n) for n in reversed(t.shape)], int(t.n_bytes),
                hashlib.sha256(np.ascontiguousarray(t.data).tobytes()).hexdigest()] for t in r.tensors]
    verdict[name] = {"sha256": hashlib.sha256(open(path, "rb").read()).hexdigest(), "fields": fields, "tensors": tensors}
json.dump(verdict, open(os.path.join(d, "verdict.json"), "w"), indent=1)
