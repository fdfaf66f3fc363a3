"""A worker: it times blocks of work on command (protocol.go has the other end).

Requirements: torch 2.15.0
"""

import json
import sys
import time

import torch


def serve(works, **versions):
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, **versions}
    say({"versions": versions, "threads": torch.get_num_threads()})
    for line in sys.stdin:
        command = json.loads(line)
        try:
            work, n, at = works[command["work"]], command["n"], command["at"]
            if warm := command["warm"]:
                work(warm, at)
            cpu, start = time.process_time(), time.perf_counter()
            check = work(n, at)
            seconds = time.perf_counter() - start
            say({"seconds": seconds, "cpu": time.process_time() - cpu, "check": check})
        except Exception as e:
            say({"error": f"{type(e).__name__}: {e}"})


def say(value):
    print(json.dumps(value), flush=True)
