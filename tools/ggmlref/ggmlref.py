"""Writes testdata/ggml.tar.zst's vectors.json: python ggmlref.py OUT

Needs gguf 0.19, numpy. Pack with: go run ./tools/pack OUT testdata/ggml.tar.zst
vectors.json holds, of what gguf.quants computes from inputs that stream(), blocks() and floats() below
define (internal/ggml's tests make the same ones), SHA-256 digests:
  sizes       type -> [id, elements, bytes] of a block
  dequantize  type -> [[digest of the input blocks, of the float32 values], ...] by kind of input
  quantize    type -> the same of float32 input and its blocks
A NaN counts as 0x7fc00000 where it is float32, as 0x7e00 where it is a block's scale or least value (numpy's choice
depends on the processor).
"""
import hashlib, json, os, sys

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as T

QUANTIZED = {"F32": 0, "F16": 0, "BF16": 0, "Q4_0": 1, "Q4_1": 2, "Q5_0": 1, "Q5_1": 2, "Q8_0": 1}  # and their halves
HALVES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFE00, 0xFFFF, 0x3C00, 0xBC00]


def stream(label, n):
    """n bytes: the SHA-256 of "label 0", "label 1", ..."""
    return b"".join(hashlib.sha256(f"{label} {i}".encode()).digest() for i in range((n + 31) // 32))[:n]


def blocks(name, size):
    """Kinds of input: random blocks; blocks of one byte; of one half, at even and at odd places."""
    patterns = [(h & 255, h >> 8) for h in HALVES]
    yield stream(name, 1024 * size)
    yield b"".join(bytes([b]) * size for b in range(256))
    yield b"".join((bytes(p) * size)[i : i + size] for p in patterns for i in (0, 1))


# Zeros of both signs are no neighbours: which of them numpy takes for the least depends on the processor.
SPECIAL = [0.0, 1e-45, -0.0, -1e-45, 1e-44, 3e-39, -6e-39, 2e-38, 1e-8, 6e-8, 0.5, 1.0, -1.0, 2.5, 65504.0, 65520.0, -1e6, 1e38, 3.4e38, -3.4e38]


STEPS = {"Q4_0": -8, "Q4_1": 15, "Q5_0": -16, "Q5_1": 31, "Q8_0": 127}  # between 0 and the furthest value of a block


def near_ties(name, block):
    """Values within a few roundings of where quantize rounds from one to the next."""
    steps, random = STEPS.get(name, 8), np.frombuffer(stream(name + " near", 512 * block), np.uint8).reshape(-1, block)
    i, greatest = np.arange(block), 1 + random[:, :1] / 256
    k = i % -(2 * steps + 1) + steps + 1 if steps < 0 else i % steps
    values = (k + 0.5 + (random % 17 - 8.0) / 2**22) * greatest / steps
    values[:, 0] = greatest[:, 0]
    values[:, 1:2] = 0
    return values.astype(np.float32).reshape(-1)


def floats(name, block):
    """Kinds of input for quantize: any bits; int16 times a power of two by block; small halves, for ties; special
    values, one or two or all of them in a block; the same with an infinity, a NaN; near ties."""
    n = 512 * block
    power = np.repeat(np.arange(512) % 64 - 40, block).astype(np.float32)
    yield np.frombuffer(stream(name + " bits", 4 * n), "<f4")
    yield np.frombuffer(stream(name + " int16", 2 * n), "<i2").astype(np.float32) * np.exp2(power)
    yield (np.frombuffer(stream(name + " int8", n), "i1") >> 3).astype(np.float32) / 2
    random = np.frombuffer(stream(name + " special", n), np.uint8).reshape(-1, block)
    width = np.array([1, 2, len(SPECIAL)])[np.arange(512) % 3].reshape(-1, 1)
    index = (random % width + np.arange(512).reshape(-1, 1)) % len(SPECIAL)
    values = np.array(SPECIAL, np.float32)[index]
    yield values.reshape(-1)
    for worst in (np.inf, -np.inf, np.nan):
        yield np.where(random > 250, np.float32(worst), values).reshape(-1)
    yield near_ties(name, block)


def digest(array):
    if array.dtype == np.float32:
        bits = array.view(np.uint32).copy()
        bits[np.isnan(array)] = 0x7FC00000
        array = bits
    return hashlib.sha256(array.tobytes()).hexdigest()


def main(out):
    os.makedirs(out, exist_ok=True)
    result = {"sizes": {}, "dequantize": {}, "quantize": {}}
    np.seterr(all="ignore")
    for t, (block, size) in GGML_QUANT_SIZES.items():
        result["sizes"][t.name] = [int(t), block, size]
        if t not in quants._type_traits and t not in (T.F32, T.F16):
            continue
        rows = []
        for data in blocks(t.name, size):
            data = np.frombuffer(data, np.uint8).reshape(-1, size)
            rows.append([digest(data), digest(quants.dequantize(data, t))])
        result["dequantize"][t.name] = rows
        if t.name not in QUANTIZED:
            continue
        rows = []
        for data in floats(t.name, block):
            coded = quants.quantize(data.reshape(-1, block), t).view(np.uint8).reshape(-1, size).copy()
            halves = coded[:, : 2 * QUANTIZED[t.name]].copy().view(np.uint16)
            halves[(halves & 0x7FFF) > 0x7C00] = 0x7E00
            coded[:, : 2 * QUANTIZED[t.name]] = halves.view(np.uint8)
            rows.append([digest(data), digest(coded)])
        result["quantize"][t.name] = rows
    json.dump(result, open(f"{out}/vectors.json", "w"), indent=0)


main(sys.argv[1])
