"""The Python side of the model benchmarks: embed.go, in Python.

Requirements: torch 2.15.0, transformers 5.23.0
"""

import json
import sys

import transformers

import worker
from minilm import MiniLM

path, texts = sys.argv[1:]
texts = json.load(open(texts))
minilm = MiniLM(path)


def digest(vectors, start=0):
    return sum(v[(start + i) % len(v)].item() for i, v in enumerate(vectors))


def batches(texts):
    """The texts as they come, 32 at a time; a batch is padded to its longest."""
    return sum(digest(minilm.embed(texts[i : i + 32]).float(), i) for i in range(0, len(texts), 32))


def load(n, at):
    for _ in range(n):
        MiniLM(path)
    return 0


if __name__ == "__main__":
    worker.serve(
        {
            "batches": lambda n, at: batches(texts["same"][at : at + n]),
            "single": lambda n, at: sum(batches([t]) for t in texts["same"][at : at + n]),
            "mixed": lambda n, at: batches(texts["mixed"][at : at + n]),
            "load": load,
        },
        transformers=transformers.__version__,
    )
