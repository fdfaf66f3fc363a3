"""Writes pins.json, the table of what `torchgo setup` may download.

    python3 third_party/pins.py 2.15.0 2.14.1 2.13.0 2.12.1 2.11.0

The first version named becomes the default. For each version the wheels of torch and of the NVIDIA
packages that it requires are downloaded by pip (several GB a version, deleted again), under Python
3.11 on linux x86-64 so that the pins name one wheel each. Needs nothing but pip.
"""

import fnmatch
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile

LICENCES = ["*.dist-info/licenses/"]

# What to unpack, by project; "nvidia-*" is the rule for the other NVIDIA wheels. A pattern that
# ends in "/" takes all below.
UNPACK = {
    "cpu": {
        "torch": [
            "torch/lib/libc10.so",
            "torch/lib/libtorch_cpu.so",
            "torch/lib/libgomp.so*",
            "torch/include/",
            "torch/version.py",
        ] + LICENCES,
        "nvidia-cuda-runtime": ["nvidia/*/lib/libcudart.so*"] + LICENCES,
        "nvidia-cuda-cupti": ["nvidia/*/lib/libcupti.so*"] + LICENCES,
    },
    "cuda": {
        "torch": [
            "torch/lib/libc10*.so",
            "torch/lib/libcaffe2_nvrtc.so",
            "torch/lib/libgomp.so*",
            "torch/lib/libtorch.so",
            "torch/lib/libtorch_c[pu]*.so",
            "torch/lib/libtorch_nvshmem.so",
            "torch/include/",
            "torch/version.py",
        ] + LICENCES,
        "nvidia-*": ["nvidia/*/lib/*.so*", "nvidia/*/include/", "nvidia/*/LICENSE*"] + LICENCES,
    },
}


def rules(device, project):
    table = UNPACK[device]
    return table.get(project) or next((r for p, r in table.items() if fnmatch.fnmatch(project, p)), None)


def takes(pattern, name):
    parts, want = name.split("/"), pattern.rstrip("/").split("/")
    if len(parts) < len(want) or (not pattern.endswith("/") and len(parts) != len(want)):
        return False
    return all(fnmatch.fnmatchcase(p, w) for p, w in zip(parts, want))


def unpacked(path, patterns):
    with zipfile.ZipFile(path) as z:
        return sum(i.file_size for i in z.infolist() if any(takes(p, i.filename) for p in patterns))


def download(folder, *requirements):
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "-d", folder, *requirements], check=True)


def pin(version):
    with tempfile.TemporaryDirectory() as folder:
        download(folder, "torch==" + version)
        torch = next(f for f in os.listdir(folder) if f.startswith("torch-"))
        with zipfile.ZipFile(os.path.join(folder, torch)) as z:
            cuda = re.search(r"cuda.*'([\d.]+)'", z.read("torch/version.py").decode()).group(1)
        # The host compiler's half of the CUDA headers, which no wheel requires.
        download(folder, "--no-deps", f"nvidia-cuda-crt=={cuda}.*")
        wheels, lists, sizes = {}, {"cpu": [], "cuda": []}, {"cpu": 0, "cuda": 0}
        for file in sorted(os.listdir(folder), key=lambda f: (not f.startswith("torch-"), f)):
            project, wheel_version = file.split("-")[:2]
            project = project.replace("_", "-").lower()
            path = os.path.join(folder, file)
            for device in ("cpu", "cuda"):
                patterns = rules(device, project)
                if patterns:
                    lists[device].append(file)
                    sizes[device] += unpacked(path, patterns)
                    with open(path, "rb") as f:
                        digest = hashlib.file_digest(f, "sha256").hexdigest()
                    wheels[file] = {
                        "project": project,
                        "version": wheel_version,
                        "size": os.path.getsize(path),
                        "sha256": digest,
                    }
    entry = {
        "version": version,
        "cuda": "cu" + cuda.replace(".", ""),
        "devices": {d: {"unpacked": sizes[d], "wheels": lists[d]} for d in ("cpu", "cuda")},
    }
    return entry, wheels


def main():
    wheels, versions = {}, []
    for version in sys.argv[1:]:
        entry, used = pin(version)
        versions.append(entry)
        wheels.update(used)
    pins = {
        "default": sys.argv[1],
        "python": {"version": "311", "implementation": "cp", "abi": "cp311"},
        "unpack": UNPACK,
        "versions": sorted(versions, key=lambda v: [int(n) for n in v["version"].split(".")]),
        "wheels": dict(sorted(wheels.items())),
    }
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "pins.json"), "w") as f:
        json.dump(pins, f, indent=2)
        f.write("\n")


main()
