"""What transformers allocates on a GPU before it loads weights there, for numbers of bytes: rows of the table in
pretrained/warmup_test.go.

Requirements: torch 2.15.0, transformers 5.23.0
"""

from unittest import mock

import torch
from transformers import modeling_utils

GIB = 1 << 30

CASES = [  # weights, reserved, allocated, free, total
    (6 * GIB, 0, 0, 70 * GIB, 80 * GIB),
    (100, 0, 0, 70 * GIB, 80 * GIB),
    (6 * GIB, 2 * GIB, 0, 70 * GIB, 80 * GIB),
    (6 * GIB, 3 * GIB, 0, 70 * GIB, 80 * GIB),
    (6 * GIB, 4 * GIB, 0, 70 * GIB, 80 * GIB),
    (6 * GIB, 5 * GIB, GIB, 3 * GIB, 80 * GIB),
    (6 * GIB, 5 * GIB, 0, 70 * GIB, 80 * GIB),
    (6 * GIB, 9 * GIB, 8 * GIB, 70 * GIB, 80 * GIB),
    (6 * GIB, 9 * GIB, 0, 70 * GIB, 80 * GIB),
    (7 * GIB, 0, 0, 8 * GIB, 8 * GIB),
    (90 * GIB, GIB, 0, 78 * GIB, 80 * GIB),
    (90 * GIB, 60 * GIB, 0, 19 * GIB, 80 * GIB),
    (3 * GIB + 7, GIB + 3, GIB, 70 * GIB, 80 * GIB),
]


def gib(n):
    whole, rest = divmod(n, GIB)
    return " + ".join([f"{whole} * gib"] * (whole > 0) + [str(rest)] * (rest > 0 or whole == 0))


for need, reserved, allocated, free, total in CASES:
    device, taken = torch.device("cuda:0"), []
    with mock.patch.object(torch.cuda, "mem_get_info", lambda i: (free, total)), \
            mock.patch.object(torch.cuda, "memory_reserved", lambda i: reserved), \
            mock.patch.object(torch.cuda, "memory_allocated", lambda i: allocated), \
            mock.patch.object(modeling_utils, "get_total_byte_count", lambda *_: {device: need}), \
            mock.patch.object(torch, "empty", lambda n, dtype, **_: taken.append(n * dtype.itemsize)):
        modeling_utils.caching_allocator_warmup(None, {"w": device}, None)
    print(f"\t{{{', '.join(map(gib, (need, reserved - allocated, free, total, *taken)))}}},")
