#!/usr/bin/env python3
"""What transformers 4 writes with safe_serialization=False.

usage: binref.py MODELS OUT      # MODELS has the folders of testdata/models-bert and models-llama unpacked
       go run ./tools/pack OUT testdata/bin.tar.zst
needs: transformers 4.57.1 (version 5 writes safetensors alone), huggingface_hub 0.36.0, tokenizers 0.22.1, torch 2.15.0

saved.json  {case: {"files": {name: sha256}}}: of a .bin without its last record, the identification, as if it had been written
            under the name archive.bin; of the index as it is
"""
import hashlib, io, json, os, struct, sys, tempfile
from pathlib import Path
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf

assert tf.__version__.startswith("4."), tf.__version__
tf.utils.logging.disable_progress_bar()
torch.set_num_threads(1)

CASES = [(m, d, s) for m in ("models-bert/bert", "models-bert/bert-mlm", "models-bert/bert-nsp-pretrain", "models-bert/bert-qa", "models-llama/llama",
                             "models-llama/llama-tied-rope-llama3") for d, s in (("float32", None), ("float16", "30KB"), ("bfloat16", "20KB"))]


def without_id(data):
    """A file of torch.save without the record .data/serialization_id, which hashes in an order of its own."""
    end = data.rindex(b"PK\x06\x06")
    start = struct.unpack_from("<Q", data, end + 48)[0]
    entry = data.rindex(b"PK\x01\x02", 0, end)
    assert data[entry:end].endswith(b"/.data/serialization_id")
    at = struct.unpack_from("<I", data, entry + 42)[0]
    out, tail, n = data[:at] + data[start:entry], bytearray(data[end:]), struct.unpack_from("<Q", data, end + 24)[0] - 1
    struct.pack_into("<QQQQ", tail, 24, n, n, entry - start, at)
    struct.pack_into("<Q", tail, 56 + 8, len(out))
    struct.pack_into("<HHII", tail, 76 + 8, n, n, entry - start, at)
    return out + tail


def make(models, out):
    saved = {}
    write = torch.save

    def into_buffer(value, path):  # so that the folder in the archive doesn't have the file's name
        buffer = io.BytesIO()
        write(value, buffer)
        Path(path).write_bytes(buffer.getvalue())

    torch.save = into_buffer
    for name, dtype, shard in CASES:
        cls = getattr(tf, tf.AutoConfig.from_pretrained(models / name).architectures[0])
        model = cls.from_pretrained(models / name, dtype=getattr(torch, dtype))
        with tempfile.TemporaryDirectory() as d:
            model.save_pretrained(d, safe_serialization=False, save_function=into_buffer, **({"max_shard_size": shard} if shard else {}))
            files = {}
            for f in sorted(os.listdir(d)):
                data = (Path(d) / f).read_bytes()
                if f.endswith(".bin"):
                    data = without_id(data)
                if f.startswith("pytorch_model"):  # the configs are those of another version
                    files[f] = hashlib.sha256(data).hexdigest()
            saved[f"{name} {dtype} {shard}"] = {"files": files}
            print(name, dtype, shard, list(files))
    out.mkdir(parents=True, exist_ok=True)
    (out / "saved.json").write_text(json.dumps(saved, indent=1) + "\n")


make(Path(sys.argv[1]), Path(sys.argv[2]))
