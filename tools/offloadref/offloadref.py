#!/usr/bin/env python3
"""Where transformers puts the parameters of the repository's tiny checkpoints by device maps, and what it says of models
that are offloaded to disk.

usage: offloadref.py OUT CASE...
CASE: folder of a checkpoint (bert-mlm of models-bert; llama, llama-tied-rope-llama3 of models-llama)
needs: Python 3.11, torch 2.15.0, transformers 5.23.0, accelerate 1.15.0
diff: of the logits from those without offloading; same_files: as those that are saved without.
OUT/offload.json: {case: {"placed": [{"map", "devices"}], "loaded": [{"map", …} or {"map", "error"}], "saved": digests}}
"""
import hashlib, json, os, sys, tempfile, warnings
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf
from transformers.integrations.accelerate import expand_device_map

tf.logging.set_verbosity_error()
warnings.filterwarnings("ignore")
torch.set_num_threads(1)


def run(model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    mask = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def saved(model):
    with tempfile.TemporaryDirectory() as to:
        model.save_pretrained(to)
        return {f: hashlib.sha256(open(os.path.join(to, f), "rb").read()).hexdigest() for f in sorted(os.listdir(to)) if f.endswith(".safetensors")}


def case(folder):
    plain = tf.AutoModelForMaskedLM if "bert" in folder else tf.AutoModelForCausalLM
    load = lambda **kw: plain.from_pretrained(folder, dtype=torch.float32, **kw).eval()
    model = load()
    names = [n for n, _ in model.named_parameters()]
    base = "bert" if "bert" in folder else "model"
    layers = base + (".encoder.layer" if base == "bert" else ".layers")
    head = "cls" if base == "bert" else "lm_head"
    maps = [
        {"": "cuda:0"},
        {base: "cuda:0", head: "cuda:1"},
        {"": "cpu", layers: "cuda:1", layers + ".0": "disk"},
        {layers + ".0": "cuda:0", layers + ".1": "cuda:1", layers: "cpu", base: "disk", "": "cuda:0"},
        {"": "disk", layers + ".1": "cuda:0", head: "cuda:1"},
        {"": "cuda:1", names[0]: "cuda:1", layers + ".0": "cpu"},
    ]
    placed = [{"map": m, "devices": expand_device_map(m, names)} for m in maps]
    loaded = []
    want, files = run(model), saved(model)
    parts = ["bert.embeddings", layers + ".0", layers + ".1", "cls"] if base == "bert" else \
        ["model.embed_tokens", layers + ".0", layers + ".1", "model.norm", "model.rotary_emb", "lm_head"]
    for disk in ([layers + ".1"], [layers + ".0", layers + ".1"], [p for p in parts if p != head], parts[1:-1], parts):
        m = {p: "disk" if p in disk else "cpu" for p in parts}
        with tempfile.TemporaryDirectory() as to:
            try:
                off = load(device_map=m, offload_folder=to)
            except Exception as e:
                loaded.append({"map": m, "error": f"{type(e).__name__}: {e}"})
                continue
            assert os.listdir(to) == []
        diff = (run(off) - want).abs().max().item()
        same = saved(off) == files
        loaded.append({
            "map": m, "diff": diff, "same_files": same, "hf_device_map": off.hf_device_map, "device": str(off.device), "dtype": str(off.dtype).removeprefix("torch."),
            "num_parameters": off.num_parameters(), "memory_footprint": off.get_memory_footprint(),
            "on_meta": sorted(n for n, p in off.named_parameters(remove_duplicate=False) if p.device.type == "meta"),
            "buffers": {n: str(b.device) for n, b in off.named_buffers()},
        })
    return {"placed": placed, "loaded": loaded, "saved": files}


out, folders = sys.argv[1], sys.argv[2:]
os.makedirs(out, exist_ok=True)
with open(os.path.join(out, "offload.json"), "w") as f:
    json.dump({os.path.basename(folder.rstrip("/")): case(folder) for folder in folders}, f, indent=1)
