"""Writes the reference files of testdata/safetensors.tar.zst: python safetensorsref.py OUT

Needs torch 2.15.0, safetensors 0.8.0, transformers 5.23.0. Pack with: go run ./tools/pack OUT testdata/safetensors.tar.zst
  all.safetensors, all.json  every dtype of torch that the format has, awkward names; name -> [dtype, shape, sha256]
  empty.safetensors          no tensors
  sharded-<size>/            a small BERT saved by save_pretrained(max_shard_size=<size>)
  order.json                 its state dict in order: [name, dtype, shape], and its number of parameters
  sizes.json                 text -> bytes, or the error text, of max_shard_size
"""
import hashlib, json, os, sys

import torch
from huggingface_hub.serialization._base import parse_size_to_int
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import BertConfig, BertForMaskedLM

out = sys.argv[1]
os.makedirs(out, exist_ok=True)

NAMES = """bool float4_e2m1fn_x2 uint8 int8 float8_e5m2 float8_e4m3fn float8_e8m0fnu float8_e4m3fnuz float8_e5m2fnuz
int16 uint16 float16 bfloat16 int32 uint32 float32 complex64 float64 int64 uint64""".split()


def make(name, shape, seed):
    dtype = getattr(torch, name)
    n = 1
    for s in shape:
        n *= s
    if n == 0:
        return torch.empty(shape, dtype=dtype)
    b = torch.arange(n * dtype.itemsize).mul(seed * 2 + 1).add(seed).remainder(256).to(torch.uint8)
    return (b % 2 if name == "bool" else b).view(dtype).reshape(shape)


tensors = {}
for i, name in enumerate(NAMES):
    tensors["t." + name] = make(name, [3, 2], i)
    tensors["a." + name] = make(name, [0, 4], i)
    if "float4" not in name:  # half a byte
        tensors['é\x7f"\\\n\x01/😀' + name] = make(name, [], i)
save_file(tensors, f"{out}/all.safetensors", {"format": "pt"})
table = {}
with safe_open(f"{out}/all.safetensors", "pt") as f:
    for k in f.keys():
        s = f.get_slice(k)
        data = tensors[k].reshape(-1).view(torch.uint8).numpy().tobytes() if tensors[k].numel() else b""
        table[k] = [s.get_dtype(), s.get_shape(), hashlib.sha256(data).hexdigest()]
json.dump(table, open(f"{out}/all.json", "w"), indent=0, sort_keys=True)
save_file({}, f"{out}/empty.safetensors")

torch.manual_seed(0)
config = BertConfig(vocab_size=96, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
                    max_position_embeddings=32)
model = BertForMaskedLM(config).eval()
for size in ("1GB", "10KB", "4KB"):
    d = f"{out}/sharded-{size}"
    model.save_pretrained(d, max_shard_size=size)
    for name in os.listdir(d):
        if "safetensors" not in name:
            os.remove(f"{d}/{name}")
saved = set()
with safe_open(f"{out}/sharded-1GB/model.safetensors", "pt") as f:
    saved = set(f.keys())
order = [[k, "F32", list(v.shape)] for k, v in model.state_dict().items() if k in saved]
json.dump({"tensors": order, "num_parameters": model.num_parameters()}, open(f"{out}/order.json", "w"), indent=0)

sizes = {}
for s in ("5GB", " 5 gb ", "1.5MB", "20XB", "500", "KB", "xMB", "0KB", "1e3KB", "2TB", "B", "", "-1GB", "5 GiB"):
    try:
        sizes[s] = parse_size_to_int(s)
    except ValueError as e:
        sizes[s] = str(e)
json.dump(sizes, open(f"{out}/sizes.json", "w"), indent=0)
