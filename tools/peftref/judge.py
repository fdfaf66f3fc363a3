#!/usr/bin/env python3
"""Judges adapters that torchgo made and saved: does peft load them without a word, and what does the model compute?

usage: TORCHGO_PEFT=DIR go test ./pretrained -run TestAdaptersThatPythonJudged   # saves DIR/CASE, merged models to DIR/CASE/merged
       judge.py DIR OUT FOLDER...      # adds OUT/judged.json and OUT/judged.safetensors to what peftref.py wrote
       go run ./tools/pack OUT testdata/peft.tar.zst
FOLDER: as for peftref.py
needs: Python 3.11, torch 2.15.0, transformers 5.23.0, peft 0.21.2

judged.json  {case: {"files": {name: sha256 of what was judged}, "missing", "unexpected": keys, "log": what peft said, "trainable": names,
              "merged": how far the logits of the merged model, as transformers loads it, are from the adapter's}}
judged.safetensors  logits of each case on the inputs of its base model
"""
import hashlib, json, logging, os, sys, warnings
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf
import peft
from safetensors.torch import save_file

tf.logging.set_verbosity_warning()
tf.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
SOURCE, OUT, FOLDERS = sys.argv[1], sys.argv[2], sys.argv[3:]


class Keep(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def sha(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()


def load(path, base):
    folder = next(p for f in FOLDERS if os.path.exists(p := os.path.join(f, base)))
    with open(os.path.join(folder, "inputs.json")) as f:
        d = json.load(f)
    inputs = {k: torch.tensor(v["data"], dtype=getattr(torch, v["dtype"])).reshape(v["shape"]) for k, v in d["inputs"].items()}
    return getattr(tf, d["class"]).from_pretrained(path or folder, attn_implementation="eager").eval(), inputs


@torch.no_grad()
def logits(model, inputs):
    return model(**inputs).logits.contiguous().clone()


verdicts, tensors = {}, {}
for case in sorted(os.listdir(SOURCE)):
    folder = os.path.join(SOURCE, case)
    v = verdicts[case] = {"files": {f: sha(os.path.join(folder, f)) for f in sorted(os.listdir(folder)) if f != "merged"}}
    with open(os.path.join(folder, "adapter_config.json")) as f:
        base = json.load(f)["base_model_name_or_path"]
    keep = Keep()
    for name in "transformers", "peft":
        logging.getLogger(name).addHandler(keep)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        model, inputs = load(None, base)
        model = peft.PeftModel.from_pretrained(model, folder, is_trainable=True).eval()
    # what peft and transformers have against each other is not about the adapter
    v["log"] = [line for line in keep.lines + [str(w.message) for w in warned] if "is_gradient_checkpointing" not in line]
    config = peft.PeftConfig.from_pretrained(folder)
    again = peft.get_peft_model(load(None, base)[0], config)
    info = peft.set_peft_model_state_dict(again, peft.load_peft_weights(folder, device="cpu"))
    v["missing"] = sorted(k for k in info.missing_keys if ".lora_" in k or ".ia3_" in k or ".modules_to_save." in k)
    v["unexpected"] = sorted(info.unexpected_keys)
    tensors[case] = logits(model, inputs)
    v["trainable"] = sum(p.requires_grad for p in model.parameters())
    merged, _ = load(os.path.join(folder, "merged"), base)
    v["merged"] = float((logits(merged, inputs) - tensors[case]).abs().max())
    print(case, {k: v[k] for k in v if k != "files"})
with open(os.path.join(OUT, "judged.json"), "w") as f:
    json.dump(verdicts, f, separators=(",", ":"))
save_file(tensors, os.path.join(OUT, "judged.safetensors"))
