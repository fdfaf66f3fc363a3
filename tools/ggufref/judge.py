"""Writes what gguf-py reads in the GGUF files that torchgo wrote: python judge.py DIR

Needs gguf 0.19. The files come from: TORCHGO_GGUF_WRITTEN=DIR go test ./pretrained/gguf -run TestWritten
DIR/verdict.json: file -> {"sha256", "fields": [[key, types, value]], "tensors": [[name, type, shape, bytes, sha256]]}.
Put it into testdata/gguf.tar.zst as written.json.
"""
import hashlib, json, math, os, sys

import numpy as np
from gguf import GGUFReader

d = sys.argv[1]


def plain(x):
    if isinstance(x, list):
        return [plain(e) for e in x]
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


verdict = {}
for name in sorted(os.listdir(d)):
    if not name.endswith(".gguf"):
        continue
    path = os.path.join(d, name)
    r = GGUFReader(path)
    fields = [[k, [t.name for t in f.types], plain(f.contents())] for k, f in r.fields.items() if not k.startswith("GGUF.")]
    tensors = [[t.name, t.tensor_type.name, [int(n) for n in reversed(t.shape)], int(t.n_bytes),
                hashlib.sha256(np.ascontiguousarray(t.data).tobytes()).hexdigest()] for t in r.tensors]
    verdict[name] = {"sha256": hashlib.sha256(open(path, "rb").read()).hexdigest(), "fields": fields, "tensors": tensors}
json.dump(verdict, open(os.path.join(d, "verdict.json"), "w"), indent=1)
