"""Numbers that both sides draw, so that no weights and no data are stored: draw.go, in Python.

Requirements: torch 2.15.0, numpy
"""

import math

import numpy as np
import torch


def words(name, shape):
    """SplitMix64 from the FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in name.encode():
        state = (state ^ byte) * 0x100000001B3 % 2**64
    z = np.uint64(state) + np.arange(1, math.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (z ^ (z >> np.uint64(31))).reshape(shape)


def uniform(name, *shape):
    """float64 from [-1, 1), multiples of 2⁻²³."""
    return torch.from_numpy((words(name, shape) >> np.uint64(40)) * 2.0**-23 - 1)


def integers(name, high, *shape):
    """int64 from [0, high)."""
    return torch.from_numpy(((words(name, shape) >> np.uint64(33)) % np.uint64(high)).astype(np.int64))


@torch.no_grad()
def fill(module):
    """Initial weights: matrices from ±√(1/fan in), convolutions from ±√(6/fan in), norms' weights from
    1 ± 0.1, all else from ±0.1."""
    for name, p in module.named_parameters():
        u = uniform(name, *p.shape)
        if p.dim() > 1:
            u *= math.sqrt((1 if p.dim() == 2 else 6) / (p.numel() // p.shape[0]))
        else:
            u = u * 0.1 + (1 if name.endswith("weight") else 0)
        p.copy_(u)


def labelled(step, classes, *shape):
    """A batch of noise in which every element whose index, or indices' sum, is the label's modulo the
    number of classes is one higher: inputs in float64, labels."""
    labels = integers(f"labels.{step}", classes, shape[0])
    place = sum(torch.meshgrid(*(torch.arange(n) for n in shape[1:]), indexing="ij"))
    marked = place % classes == labels.reshape(-1, *[1] * (len(shape) - 1))
    return uniform(f"inputs.{step}", *shape) + marked, labels


def sequences(step, vocabulary, batch, length):
    """Counting up in steps of a width of its own, modulo the vocabulary: tokens, and those that follow."""
    start = integers(f"start.{step}", vocabulary, batch)[:, None]
    width = 1 + integers(f"width.{step}", 7, batch)[:, None]
    tokens = (start + width * torch.arange(length + 1)) % vocabulary
    return tokens[:, :-1], tokens[:, 1:]
