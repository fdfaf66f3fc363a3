"""Loading checkpoints with transformers: load.go, in Python.

    load.py MODELS                    a worker
    load.py MODELS llama bfloat16     loads once and prints what the process took

Requirements: torch 2.15.0, transformers 5.23.0; for GGUF gguf 0.19
"""

import glob
import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import torch
import transformers

GGUF_FILE = "model.gguf"
CLASSES = {"llama": "LlamaForCausalLM", "mixtral": "MixtralForCausalLM"}


def load(models, name, **kwargs):
    if name == "gguf":
        return transformers.AutoModelForCausalLM.from_pretrained(os.path.join(models, name), gguf_file=GGUF_FILE, **kwargs)
    if name == "llama-bin":
        return fill(models, empty_model(models))
    return getattr(transformers, CLASSES[name]).from_pretrained(os.path.join(models, name), **kwargs)


def empty_model(models):
    config = transformers.LlamaConfig.from_pretrained(os.path.join(models, "llama-bin"))
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    return model.to_empty(device="cpu")


def fill(models, model):
    for path in sorted(glob.glob(os.path.join(models, "llama-bin", "*.bin"))):
        model.load_state_dict(torch.load(path, weights_only=True), strict=False)
    return model


def filling(models):
    there = []

    def work(n, at):
        if not there:
            there.append(empty_model(models))
        check = 0.0
        for _ in range(n):
            check += some_of(fill(models, there[0]))
        return check

    return work


def dequantize(models):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    total = 0.0
    for t in GGUFReader(os.path.join(models, "gguf", GGUF_FILE)).tensors:
        values = dequantize(t.data, t.tensor_type).reshape(-1)
        total += float(values[values.size // 2])
    return total


def some_of(model):
    return sum(p.view(-1)[p.numel() // 2].double().item() for p in model.parameters())


def loading(models, name, **kwargs):
    def work(n, at):
        check = 0.0
        for _ in range(n):
            model = load(models, name, **kwargs)
            check += some_of(model)
            del model
        return check

    return work


def read_file(path):
    buf, at = bytearray(4 << 20), 0
    fd = os.open(path, os.O_RDONLY)
    try:
        while n := os.preadv(fd, [buf], at):
            at += n
    finally:
        os.close(fd)
    return at


def read_files(models):
    with ThreadPoolExecutor(2) as pool:
        return float(sum(pool.map(read_file, glob.glob(os.path.join(models, "llama", "*.safetensors")))))


def copying():
    tensors = []

    def work(n, at):
        if not tensors:
            tensors.extend([torch.ones(64 << 20), torch.ones(64 << 20)])
        for _ in range(n):
            tensors[1].copy_(tensors[0])
        return float(n * (64 << 20) * 4)

    return work


def footprint():
    with open("/proc/self/status") as f:
        kib = {k: v.split()[0] for k, v in (line.split(":", 1) for line in f) if v.strip().endswith("kB")}
    return {k: int(kib[k]) / 1024 for k in ("VmRSS", "VmHWM", "RssAnon")}


def load_once(models, name, dtype):
    torch.ones(2, 2).add(1)
    getattr(transformers, CLASSES.get(name, "LlamaForCausalLM"))  # imports it
    before, anonymous, stop = footprint(), [0.0], threading.Event()

    def watch():
        while not stop.wait(0.002):
            anonymous[0] = max(anonymous[0], footprint()["RssAnon"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    model = load(models, name, dtype=dtype)
    stop.set()
    watcher.join()
    after = footprint()
    print(json.dumps({"check": [some_of(model)], "model": model.get_memory_footprint() / 2**20, "base": before["VmRSS"],
                      "peak": after["VmHWM"] - before["VmRSS"],
                      "anonymous": max(anonymous[0], after["RssAnon"]) - before["RssAnon"]}))


if __name__ == "__main__":
    models = sys.argv[1]
    transformers.utils.logging.disable_progress_bar()
    if len(sys.argv) > 2:
        load_once(models, *sys.argv[2:])
    else:
        from worker import serve

        serve({
            "load-same": loading(models, "llama"),
            "load-cast": loading(models, "llama", dtype=torch.float32),
            "load-experts": loading(models, "mixtral"),
            "load-bin": filling(models),
            "load-gguf": loading(models, "gguf", dtype=torch.bfloat16),
            "dequantize": lambda n, at: dequantize(models),
            "pread": lambda n, at: read_files(models),
            "copy": copying(),
        }, transformers=transformers.__version__)
