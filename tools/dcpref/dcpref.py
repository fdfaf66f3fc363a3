"""Sharded checkpoints of torch.distributed.checkpoint in their safetensors form, as Python writes them.

    python tools/dcpref/dcpref.py MODEL OUT

MODEL is a folder with config.json and model.safetensors (case "single" of testdata/loader). OUT gets folders:
rows    every tensor sharded over 3 ranks in dimension 0 (uneven, some ranks empty)
grid    matrices sharded over 2 x 2 ranks in both dimensions, vectors in one, the rest replicated
columns matrices sharded over 3 ranks in dimension 1
Needs torch 2.15.0, safetensors.
"""

import os
import shutil
import sys

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.multiprocessing as mp
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def placements(case, t):
    if case == "rows":
        return [Shard(0)] if t.dim() else [Replicate()]
    if case == "columns":
        return [Shard(1)] if t.dim() > 1 else [Replicate()]
    return [Shard(0), Shard(1)] if t.dim() > 1 else [Replicate(), Replicate()]


def run(rank, world, case, model, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29561", RANK=str(rank), WORLD_SIZE=str(world))
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2, 2) if case == "grid" else (world,))
    state = {n: distribute_tensor(t, mesh, placements(case, t)) for n, t in load_file(model + "/model.safetensors").items()}
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(path=out, save_distributed=True, enable_consolidation=False))
    dist.destroy_process_group()


if __name__ == "__main__":
    model, out = sys.argv[1:]
    for case, world in (("rows", 3), ("grid", 4), ("columns", 3)):
        folder = os.path.join(out, case)
        os.makedirs(folder)
        mp.spawn(run, (world, case, model, folder), world)
        shutil.copy(os.path.join(model, "config.json"), folder)
        print(case, sorted(os.listdir(folder)))
