#!/usr/bin/env python3
"""What transformers writes when it saves: files for a set of models, and generation configs.

usage: saveref.py LOADER MODELS OUT
LOADER, MODELS: folders that hold what testdata/loader.tar.zst and testdata/models-llama.tar.zst do
needs: torch 2.15.0, transformers 5.23.0, safetensors

OUT/saves.json       [{"name", "from", "class", "load", "change", "save", "files": {name: sha256}, "documents": {name: text}, "error"}]
OUT/generation.json  [{"name", "file": object or null, "config": object, "set": object, "out": text, "error", "at": "load" or "save"}]
"""
import hashlib, json, os, sys, tempfile, warnings
os.environ.setdefault("HF_HUB_OFFLINE", "1")
import torch
import transformers as tf

tf.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
warnings.simplefilter("ignore")
torch.set_num_threads(1)
loader, models, out = sys.argv[1:4]

Q, K, V = (f"bert.encoder.layer.0.attention.self.{n}.weight" for n in ("query", "key", "value"))


def put(model, name, tensor):
    owner, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(tensor, requires_grad=False))


def fused(model):  # three views of one storage that don't overlap
    p = dict(model.named_parameters())
    for name, part in zip((Q, K, V), torch.cat([p[n].detach() for n in (Q, K, V)]).chunk(3)):
        put(model, name, part)


def view(model):  # a view of a bigger storage
    w = model.get_parameter(Q).detach()
    put(model, Q, torch.cat([w, w + 1, w + 2])[w.shape[0]:2 * w.shape[0]])


def transposed(model):
    put(model, Q, model.get_parameter(Q).detach().t().contiguous().t())


def shared(model):  # two layers are one, which nothing declares
    for leaf in ("weight", "bias"):
        model.bert.encoder.layer[0].output.dense._parameters[leaf] = model.bert.encoder.layer[1].output.dense._parameters[leaf]


def overlapping(model):
    w = model.get_parameter(Q).detach()
    both = torch.cat([w, w])
    put(model, Q, both[:w.shape[0]])
    put(model, K, both[1:w.shape[0] + 1])


def untied(model):
    model.cls.predictions.decoder.weight = torch.nn.Parameter(model.bert.embeddings.word_embeddings.weight.detach() + 1)


def trained(model):  # a step of SGD with gradients of one
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD(model.parameters(), lr=0.5).step()


def half(model):
    model.half()


def encoder(model):
    return {k: v for k, v in model.state_dict().items() if ".encoder." in k}


MLM = "BertForMaskedLM"
SAVES = [
    ("single", "single", MLM, {}, None, {}),
    ("single in shards", "single", MLM, {}, None, {"max_shard_size": "8KB"}),
    ("a shard for each large tensor", "single", MLM, {}, None, {"max_shard_size": "1KB"}),
    ("shards in one", "sharded", MLM, {}, None, {}),
    ("shards in shards", "sharded", MLM, {}, None, {"max_shard_size": "8KB"}),
    ("own format", "single", MLM, {}, None, {"max_shard_size": "8KB", "save_original_format": False}),
    ("variant", "variant", MLM, {"variant": "fp16"}, None, {"variant": "bf16"}),
    ("variant in shards", "single", MLM, {}, None, {"variant": "fp16", "max_shard_size": "8KB"}),
    ("float16", "fp16-auto", MLM, {}, None, {}),
    ("float32 as bfloat16", "single", MLM, {"dtype": "bfloat16"}, None, {}),
    ("float16 as float32", "fp16-auto", MLM, {"dtype": "float32"}, None, {}),
    ("gamma and beta", "gamma-beta", MLM, {}, None, {}),
    ("gamma and beta in shards", "gamma-beta", MLM, {}, None, {"max_shard_size": "8KB"}),
    ("gamma and beta, own format", "gamma-beta", MLM, {}, None, {"max_shard_size": "8KB", "save_original_format": False}),
    ("key mapping", "key-mapping", MLM, {"key_mapping": {r"^zz\.": ""}}, None, {"max_shard_size": "8KB"}),
    ("key mapping, own format", "key-mapping", MLM, {"key_mapping": {r"^zz\.": ""}}, None, {"save_original_format": False}),
    ("key mapping with a group", "single", MLM, {"key_mapping": {r"^nothing\.(a|b)": r"bert.\1"}}, None, {}),
    ("untied in the file", "tied-both-present-differ", MLM, {}, None, {}),
    ("tied by the head alone", "tied-only-head-present", MLM, {}, None, {}),
    ("fused", "single", MLM, {}, "fused", {}),
    ("view", "single", MLM, {}, "view", {}),
    ("transposed", "single", MLM, {}, "transposed", {}),
    ("shared", "single", MLM, {}, "shared", {}),
    ("overlapping", "single", MLM, {}, "overlapping", {}),
    ("untied", "single", MLM, {}, "untied", {"max_shard_size": "8KB"}),
    ("trained", "single", MLM, {}, "trained", {}),
    ("half", "single", MLM, {}, "half", {}),
    ("state dict", "single", MLM, {}, None, {"state_dict": "encoder", "max_shard_size": "8KB"}),
    ("not the main process", "single", MLM, {}, None, {"is_main_process": False}),
    ("offloaded", "single", MLM, {"device_map": {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "disk"}}, None, {}),
    ("offloaded in shards", "single", MLM, {"device_map": {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "disk"}}, None, {"max_shard_size": "8KB"}),
    ("offloaded, gamma and beta", "gamma-beta", MLM, {"device_map": {"bert.embeddings": "cpu", "bert.encoder": "disk", "cls": "disk"}}, None, {"max_shard_size": "8KB"}),
    ("offloaded llama", "llama", "LlamaForCausalLM", {"device_map": {"model.embed_tokens": "cpu", "model.layers": "disk", "model.norm": "disk", "model.rotary_emb": "cpu", "lm_head": "disk"}}, None, {"max_shard_size": "20KB"}),
    ("llama", "llama", "LlamaForCausalLM", {}, None, {}),
    ("llama in shards", "llama", "LlamaForCausalLM", {}, None, {"max_shard_size": "20KB"}),
    ("tied llama", "llama-tied-rope-llama3", "LlamaForCausalLM", {}, None, {"max_shard_size": "20KB"}),
    ("llama yarn as bfloat16", "llama-rope-yarn", "LlamaForCausalLM", {"dtype": "bfloat16"}, None, {}),
    ("llama classifier", "llama-seqcls", "LlamaForSequenceClassification", {}, None, {}),
]


def save(name, source, cls, load, change, options):
    folder = os.path.join(models if source.startswith("llama") else loader, source)
    model = getattr(tf, cls).from_pretrained(folder, **load)
    if change:
        globals()[change](model)
    kwargs = dict(options)
    if "state_dict" in kwargs:
        kwargs["state_dict"] = globals()[kwargs["state_dict"]](model)
    row = {"name": name, "from": source, "class": cls, "load": load, "change": change or "", "save": options}
    with tempfile.TemporaryDirectory() as d:
        try:
            model.save_pretrained(d, **kwargs)
        except RuntimeError as e:
            row["error"] = str(e)
            return row
        row["files"], row["documents"] = {}, {}
        for f in sorted(os.listdir(d)):
            data = open(os.path.join(d, f), "rb").read()
            row["files"][f] = hashlib.sha256(data).hexdigest()
            if f.endswith(".json"):
                row["documents"][f] = data.decode()
    return row


LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
         "use_cache": True, "transformers_version": "5.23.0"}
GENERATION = [
    # name, generation_config.json or None, config.json, changes
    ("derived", None, LLAMA, {}),
    ("derived from an old config", None, {**LLAMA, "max_length": 50, "temperature": 0.7, "do_sample": True, "length_penalty": None,
                                          "eos_token_id": [2, 3], "output_hidden_states": True, "unknown_thing": 1}, {}),
    ("derived with a decoder", None, {**LLAMA, "eos_token_id": None, "text_config": {"eos_token_id": 7, "num_beams": 4, "bos_token_id": 9}}, {}),
    ("derived, forced bos", None, {**LLAMA, "force_bos_token_to_be_generated": True}, {}),
    ("plain", {"bos_token_id": 1, "eos_token_id": [2, 5], "do_sample": True, "temperature": 0.6, "top_p": 0.9,
               "transformers_version": "4.40.0"}, LLAMA, {}),
    ("nulls", {"max_length": None, "top_k": None, "custom": None, "eos_token_id": 2}, LLAMA, {}),
    ("unknown keys", {"eos_token_id": 2, "chat_format": "chatml", "Ünï": ["x", 1.5, {"b": 1, "a": None}], "z": 1e-7}, LLAMA, {}),
    ("from a model config with unknown keys", {"_from_model_config": True, "eos_token_id": 2, "foo": 1}, LLAMA, {}),
    ("commit hash", {"_commit_hash": "abc", "eos_token_id": 2}, LLAMA, {}),
    ("defaults spelt out", {"max_length": 20, "num_beams": 1, "temperature": 1.0, "do_sample": False}, LLAMA, {}),
    ("greedy with a temperature", {"temperature": 0.6, "eos_token_id": 2}, LLAMA, {}),
    ("watermarking", {"watermarking_config": {"bias": 2.5}}, LLAMA, {}),
    ("empty", {}, LLAMA, {}),
    ("early stopping never", {"early_stopping": "never", "num_beams": 2}, LLAMA, {}),
    ("suppress", {"suppress_tokens": [1, 2], "forced_eos_token_id": 3, "begin_suppress_tokens": [4]}, LLAMA, {}),
    ("bad early stopping", {"early_stopping": "maybe"}, LLAMA, {}),
    ("bad max_new_tokens", {"max_new_tokens": 0}, LLAMA, {}),
    ("bad cache", {"cache_implementation": "foo"}, LLAMA, {}),
    ("bad weight", {"assistant_ensemble_weight": 1.0}, LLAMA, {}),
    ("bad sequences", {"num_return_sequences": 2}, LLAMA, {}),
    ("bad sequences of beams", {"num_return_sequences": 3, "num_beams": 2}, LLAMA, {}),
    ("forced and suppressed", {"suppress_tokens": [1, 2], "forced_bos_token_id": 2}, LLAMA, {}),
    ("an argument of generate", {"streamer": 1}, LLAMA, {}),
    ("bad watermark", {"watermarking_config": {"context_width": 0}}, LLAMA, {}),
    ("changed", {"eos_token_id": 2}, LLAMA, {"do_sample": True, "temperature": 0.5, "top_k": 40}),
    ("unset", {"eos_token_id": 2, "do_sample": True}, LLAMA, {"do_sample": None}),
    ("changed, temperature without sampling", {"eos_token_id": 2}, LLAMA, {"temperature": 0.5}),
    ("changed, top_p without sampling", {"eos_token_id": 2}, LLAMA, {"top_p": 0.5}),
    ("changed, top_k of the default", {"eos_token_id": 2}, LLAMA, {"top_k": 50}),
    ("changed, length penalty without beams", {"eos_token_id": 2}, LLAMA, {"length_penalty": 2.0}),
    ("changed, early stopping without beams", {"eos_token_id": 2}, LLAMA, {"early_stopping": True}),
    ("changed, early stopping false", {"eos_token_id": 2}, LLAMA, {"early_stopping": False}),
    ("changed, scores without a dict", {"eos_token_id": 2}, LLAMA, {"output_scores": True}),
    ("changed, negative padding", {"eos_token_id": 2}, LLAMA, {"pad_token_id": -1}),
    ("changed, cache unused", {"eos_token_id": 2, "cache_implementation": "static"}, LLAMA, {"use_cache": False}),
    ("greedy with a temperature, changed elsewhere", {"temperature": 0.6, "eos_token_id": 2}, LLAMA, {"eos_token_id": 3}),
]


def generation(name, file, config, changes):
    row = {"name": name, "file": file, "config": config, "set": changes}
    with tempfile.TemporaryDirectory() as d:
        with open(os.path.join(d, "config.json"), "w") as f:
            json.dump(config, f)
        if file is not None:
            with open(os.path.join(d, "generation_config.json"), "w") as f:
                json.dump(file, f)
        where = "load"
        try:
            try:
                g = tf.GenerationConfig.from_pretrained(d)
            except OSError:  # as a model does
                g = tf.GenerationConfig.from_pretrained(d, config_file_name="config.json", _from_model_config=True)
            where = "save"
            for k, v in changes.items():
                setattr(g, k, v)
            g.save_pretrained(os.path.join(d, "out"))
            row["out"] = open(os.path.join(d, "out", "generation_config.json")).read()
        except (ValueError, TypeError) as e:
            row["error"], row["at"] = str(e), where
    return row


os.makedirs(out, exist_ok=True)
for file, rows in ("saves.json", [save(*s) for s in SAVES]), ("generation.json", [generation(*g) for g in GENERATION]):
    with open(os.path.join(out, file), "w") as f:
        json.dump(rows, f, indent=1)
        f.write("\n")
