"""Writes the reference files of testdata/gguf.tar.zst and testdata/gguf-quants.tar.zst: python ggufref.py OUT

Needs torch 2.15.0 (CPU), transformers 5.23.0, gguf 0.19, safetensors. Pack with:
  go run ./tools/pack OUT/gguf testdata/gguf.tar.zst
  go run ./tools/pack OUT/gguf-quants testdata/gguf-quants.tar.zst

OUT/gguf/llama-<T>.gguf          a tiny llama, T = F16, Q4_0, Q8_0
  llama-<T>.expected.safetensors input_ids and logits, as transformers computes them from the file
  llama-<T>.json                 sha256 of every float32 tensor: "sd" by the model's name as transformers loads it (q and k
                                 un-permuted), "dequantized" by the file's name, as gguf.quants.dequantize makes it
  rewritten.json                 sha256 of the files that gguf-py writes with the metadata of llama-F16.gguf and its tensors
                                 quantized to other types, norms apart
  requantized.json               sha256 of each tensor of that of Q4_0
  blocks.safetensors             4 blocks of random bytes of every type: <T>.blocks, and <T>.float32, their values
  blocks-scaled/                 the same with scales of real models: expected.safetensors has <T>.blocks and <T>.dequant,
                                 inputs.json elements and bytes of a block and the type's number
OUT/gguf-quants/gguf-<t>/        llamas of one layer with 256 columns, t = q4_k, q3_k, iq4_xs; output.weight is Q6_K:
  model.gguf, expected.safetensors (logits), inputs.json (input_ids, sha256_fp32_dequant_by_gguf_name)
"""
import hashlib, json, os, sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as T, quants
from safetensors.numpy import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.set_num_threads(1)
out = sys.argv[1]


def digest(a):
    return hashlib.sha256(np.ascontiguousarray(a, dtype=np.float32).tobytes()).hexdigest()


def random_blocks(r):
    vectors = {}
    for t in T:
        if t not in gguf.GGML_QUANT_SIZES:
            continue
        size = gguf.GGML_QUANT_SIZES[t][1]
        try:
            for _ in range(200):
                b = r.integers(0, 256, (4, size), dtype=np.uint8)
                d = quants.dequantize(b, t)
                if np.isfinite(d).all() and np.abs(d).max() < 1e6:
                    break
            else:
                continue
        except Exception:  # a type that gguf can't dequantize
            continue
        vectors[t.name + ".blocks"] = b
        vectors[t.name + ".float32"] = np.ascontiguousarray(d, dtype=np.float32)
    return vectors


def vocabulary(w, tokens):
    w.add_token_list(tokens)
    w.add_token_scores([0.0] * len(tokens))
    w.add_token_types([1] * len(tokens))
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)


def finish(w):
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


E, L, H, K, F, V = 64, 2, 4, 2, 96, 96


def llama_writer(path):
    w = gguf.GGUFWriter(path, "llama")
    w.add_block_count(L)
    w.add_context_length(64)
    w.add_embedding_length(E)
    w.add_feed_forward_length(F)
    w.add_head_count(H)
    w.add_head_count_kv(K)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(E // H)
    w.add_vocab_size(V)
    w.add_tokenizer_model("llama")
    vocabulary(w, [f"t{i}" for i in range(V)])
    return w


def rewritten(d):
    tensors = gguf.GGUFReader(os.path.join(d, "llama-F16.gguf")).tensors
    path = os.path.join(d, "rewritten.gguf")
    sums, requantized = {}, {}
    for t in (T.F32, T.F16, T.BF16, T.Q8_0, T.Q4_0, T.Q4_1, T.Q5_0, T.Q5_1):
        w = llama_writer(path)
        for x in tensors:
            if "norm" in x.name:
                w.add_tensor(x.name, x.data)
            else:
                w.add_tensor(x.name, quants.quantize(x.data.astype(np.float32), t), raw_dtype=t)
        finish(w)
        if t == T.Q4_0:
            requantized = {x.name: hashlib.sha256(x.data.tobytes()).hexdigest() for x in gguf.GGUFReader(path).tensors}
        sums[t.name] = hashlib.sha256(open(path, "rb").read()).hexdigest()
    os.remove(path)
    json.dump(sums, open(os.path.join(d, "rewritten.json"), "w"), indent=1)
    json.dump(requantized, open(os.path.join(d, "requantized.json"), "w"), indent=1)


def llama(d, t, r):
    file = f"llama-{t.name}.gguf"
    w = llama_writer(os.path.join(d, file))
    dequantized = {}

    def add(name, shape, norm=False):
        scale = 0.1 if norm else 0.6 if "embd" in name else 1.2 / shape[-1] ** 0.5
        a = r.standard_normal(shape)
        a = (1 + scale * a if norm else a * scale).astype(np.float32)
        if norm:
            w.add_tensor(name, a)
        else:
            b = quants.quantize(a, t)
            w.add_tensor(name, b, raw_dtype=t)
            a = quants.dequantize(b, t)
        dequantized[name] = digest(a)

    add("token_embd.weight", (V, E))
    add("output_norm.weight", (E,), True)
    add("output.weight", (V, E))
    kv = K * E // H
    for i in range(L):
        p = f"blk.{i}."
        add(p + "attn_norm.weight", (E,), True)
        add(p + "ffn_norm.weight", (E,), True)
        add(p + "attn_q.weight", (E, E))
        add(p + "attn_k.weight", (kv, E))
        add(p + "attn_v.weight", (kv, E))
        add(p + "attn_output.weight", (E, E))
        add(p + "ffn_gate.weight", (F, E))
        add(p + "ffn_up.weight", (F, E))
        add(p + "ffn_down.weight", (E, F))
    finish(w)
    m, info = AutoModelForCausalLM.from_pretrained(d, gguf_file=file, output_loading_info=True)
    assert not any(info.values()), info
    ids = torch.arange(5, 17)[None]
    with torch.no_grad():
        logits = m(input_ids=ids).logits
    save_file({"input_ids": ids.numpy(), "logits": logits.float().numpy()}, os.path.join(d, f"llama-{t.name}.expected.safetensors"))
    sd = {k: digest(v.float().numpy()) for k, v in m.state_dict().items()}
    json.dump({"sd": sd, "dequantized": dequantized}, open(os.path.join(d, f"llama-{t.name}.json"), "w"), indent=1)


# The float16 fields of blocks: byte offset, lowest and highest value.
SCALES = {
    "Q4_0": [(0, .01, .02)], "Q5_0": [(0, .005, .01)], "Q8_0": [(0, .0008, .0015)], "IQ4_NL": [(0, .0008, .0015)],
    "Q2_K": [(80, .004, .008), (82, .004, .008)], "Q3_K": [(108, .0006, .0012)], "Q4_K": [(0, .0003, .0005), (2, .002, .004)],
    "Q5_K": [(0, .00015, .0003), (2, .002, .004)], "Q6_K": [(208, .00004, .00008)],
    "TQ1_0": [(52, .03, .06)], "TQ2_0": [(64, .03, .06)],
    "IQ1_S": [(0, .006, .01)], "IQ2_XXS": [(0, .0006, .0012)], "IQ2_XS": [(0, .0006, .0012)], "IQ2_S": [(0, .0006, .0012)],
    "IQ3_XXS": [(0, .0006, .001)], "IQ3_S": [(0, .0003, .0006)], "IQ4_XS": [(0, .00004, .00008)],
}


def scaled_blocks(t, n, r):
    """Random blocks whose values are of the size of real weights."""
    b = r.integers(0, 256, (n, gguf.GGML_QUANT_SIZES[t][1]), dtype=np.uint8)
    if t.name in ("Q4_1", "Q5_1"):
        lo, hi = (.012, .02) if t.name == "Q4_1" else (.006, .01)
        b[:, 0:2] = r.uniform(lo, hi, n).astype(np.float16).view(np.uint8).reshape(n, 2)
        b[:, 2:4] = (-r.uniform(.09, .15, (n, 1))).astype(np.float16).view(np.uint8)
    elif t.name == "Q8_K":
        b[:, :4] = r.uniform(.0005, .001, n).astype(np.float32).view(np.uint8).reshape(n, 4)
    elif t.name == "IQ1_M":  # the scale's four digits are the top digits of four words
        words = b[:, 48:56].copy().view(np.uint16)
        d = r.uniform(.004, .008, n).astype(np.float16).view(np.uint16)
        for k in range(4):
            words[:, k] = (words[:, k] & 0x0FFF) | (((d >> (4 * k)) & 0xF) << 12).astype(np.uint16)
        b[:, 48:56] = words.view(np.uint8)
    elif t.name == "MXFP4":
        b[:, 0] = r.integers(120, 124, n)
    elif t.name == "NVFP4":
        b[:, :4] = r.integers(0x18, 0x28, (n, 4))
    else:
        for at, lo, hi in SCALES.get(t.name, [(0, .001, .002)]):
            b[:, at:at + 2] = r.uniform(lo, hi, n).astype(np.float16).view(np.uint8).reshape(n, 2)
    return b


def blocks_scaled(d):
    os.makedirs(d, exist_ok=True)
    r = np.random.default_rng(5)
    vectors, info = {}, {}
    for t in T:
        if t.name in ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64", "Q8_1") or t not in gguf.GGML_QUANT_SIZES:
            continue
        b = scaled_blocks(t, 4, r)
        try:
            y = quants.dequantize(b, t).astype(np.float32)
        except NotImplementedError:
            continue
        assert np.isfinite(y).all()
        vectors[t.name + ".blocks"], vectors[t.name + ".dequant"] = b, y.reshape(4, -1)
        info[t.name] = {"block": gguf.GGML_QUANT_SIZES[t][0], "bytes": gguf.GGML_QUANT_SIZES[t][1], "type_id": int(t)}
    save_file(vectors, os.path.join(d, "expected.safetensors"))
    json.dump(info, open(os.path.join(d, "inputs.json"), "w"), indent=1)


def quantized(d, t):
    os.makedirs(d, exist_ok=True)
    h, heads, kv, v = 256, 4, 2, 32
    r = np.random.default_rng(11)
    w = gguf.GGUFWriter(os.path.join(d, "model.gguf"), "llama")
    w.add_name("gguf-" + t.name.lower())
    w.add_context_length(128)
    w.add_embedding_length(h)
    w.add_block_count(1)
    w.add_feed_forward_length(h)
    w.add_head_count(heads)
    w.add_head_count_kv(kv)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_freq_base(10000.0)
    w.add_rope_dimension_count(h // heads)
    w.add_vocab_size(v)
    w.add_tokenizer_model("llama")
    w.add_file_type(0)
    vocabulary(w, [f"<{k}>" for k in range(v)])
    sd, digests = {}, {}

    def add(name, model_name, rows, heads=None, t=t):
        if t in (T.Q4_0, T.Q8_0):
            b = quants.quantize(r.normal(0, .07, (rows, h)).astype(np.float32), t)
        else:
            b = scaled_blocks(t, rows * h // gguf.GGML_QUANT_SIZES[t][0], r).reshape(rows, -1)
        w.add_tensor(name, b, raw_dtype=t)
        y = quants.dequantize(b, t).astype(np.float32).reshape(rows, h)
        digests[name] = digest(y)
        if heads:  # rows in pairs for a rotation of neighbours -> halves
            y = y.reshape(heads, rows // heads // 2, 2, h).swapaxes(1, 2).reshape(rows, h)
        sd[model_name] = torch.from_numpy(y.copy())

    def add_norm(name, model_name):
        x = (1 + .1 * r.normal(size=h)).astype(np.float32)
        w.add_tensor(name, x)
        sd[model_name] = torch.from_numpy(x)

    add("token_embd.weight", "model.embed_tokens.weight", v)
    add_norm("output_norm.weight", "model.norm.weight")
    add("output.weight", "lm_head.weight", v, t=T.Q6_K)
    p, q = "blk.0.", "model.layers.0."
    add(p + "attn_q.weight", q + "self_attn.q_proj.weight", h, heads)
    add(p + "attn_k.weight", q + "self_attn.k_proj.weight", kv * h // heads, kv)
    add(p + "attn_v.weight", q + "self_attn.v_proj.weight", kv * h // heads)
    add(p + "attn_output.weight", q + "self_attn.o_proj.weight", h)
    add(p + "ffn_gate.weight", q + "mlp.gate_proj.weight", h)
    add(p + "ffn_up.weight", q + "mlp.up_proj.weight", h)
    add(p + "ffn_down.weight", q + "mlp.down_proj.weight", h)
    add_norm(p + "attn_norm.weight", q + "input_layernorm.weight")
    add_norm(p + "ffn_norm.weight", q + "post_attention_layernorm.weight")
    finish(w)
    ids = torch.randint(0, 64, (2, 9), generator=torch.Generator().manual_seed(7)) % v
    m = LlamaForCausalLM(LlamaConfig(hidden_size=h, intermediate_size=h, num_hidden_layers=1, num_attention_heads=heads,
                                     num_key_value_heads=kv, vocab_size=v, max_position_embeddings=128, rms_norm_eps=1e-5,
                                     tie_word_embeddings=False)).eval()
    m.load_state_dict(sd)
    with torch.no_grad():
        logits = m(ids).logits
        loaded = AutoModelForCausalLM.from_pretrained(d, gguf_file="model.gguf", dtype=torch.float32).eval()(ids).logits
    assert torch.equal(logits, loaded)
    save_file({"logits": logits.numpy()}, os.path.join(d, "expected.safetensors"))
    json.dump({"input_ids": ids.tolist(), "sha256_fp32_dequant_by_gguf_name": digests}, open(os.path.join(d, "inputs.json"), "w"), indent=1)


d = os.path.join(out, "gguf")
os.makedirs(d, exist_ok=True)
for t in (T.F16, T.Q4_0, T.Q8_0):
    r = np.random.default_rng(0)
    vectors = random_blocks(r)
    llama(d, t, r)
rewritten(d)
save_file(vectors, os.path.join(d, "blocks.safetensors"))
blocks_scaled(os.path.join(d, "blocks-scaled"))
for t in sys.argv[2:] or ("Q4_K", "Q3_K", "IQ4_XS"):
    quantized(os.path.join(out, "gguf-quants", "gguf-" + t.lower()), T[t])
