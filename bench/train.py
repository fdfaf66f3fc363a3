"""The Python side of the training benchmarks: train.go, in Python.

Requirements: torch 2.15.0, numpy
"""

import torch
from torch.nn import functional as F

import worker
from models import draw, gpt, llama


def training(build, threads, first, vocabulary, batch, length):
    state = {}

    def step(i):
        x, y = state["batches"][i % 8]
        state["opt"].zero_grad()
        out = state["model"](x)
        loss = F.cross_entropy(out.reshape(-1, out.shape[-1]), y.reshape(-1))
        loss.backward()
        state["opt"].step()
        return loss.item()

    def work(n, at):
        torch.set_num_threads(threads)
        if not state:
            state["model"] = build()
            draw.fill(state["model"])
            state["opt"] = torch.optim.AdamW(state["model"].parameters(), lr=1e-4)
            state["batches"] = [draw.sequences(i, vocabulary, batch, length) for i in range(8)]
            for i in range(first):
                state["check"] = step(i)
        for i in range(n):
            step(i)
        return state["check"]

    return work


if __name__ == "__main__":
    worker.serve(
        {
            "gpt": training(lambda: gpt.GPT(64, 16, 32, 2, 4), 1, 20, 64, 2, 16),
            "smollm2": training(lambda: llama.Llama(**llama.SMOLLM2), torch.get_num_threads(), 2, 49152, 2, 256),
        }
    )
