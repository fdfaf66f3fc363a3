#!/usr/bin/env python3
"""Tiny, seeded, deterministic reference checkpoints for a from_pretrained clone.

usage: tinyrefs.py OUT [--only a,b,c] [--check] [--no-loader-cases]
needs: Python 3.11, torch 2.15.0 (CPU is enough), transformers 5.23.0, accelerate, safetensors, numpy
--check generates a second time in a fresh process and compares bytes (about 60 s per pass on one core).

OUT/<case>/config.json            as written by save_pretrained
OUT/<case>/model.safetensors      (or sharded / .bin in OUT/_loader/*)
OUT/<case>/generation_config.json for models which generate
OUT/<case>/inputs.json            {"class","auto_class","inputs":{name:{dtype,shape,data}},"generate":{...},"notes":...}
OUT/<case>/expected.safetensors   float32 logits/last_hidden_state/...; generate.ids; grad.*; loss
OUT/_loader/<case>/               loader behaviour: report.json = what transformers reported
OUT/MANIFEST.json, OUT/README.md  sizes, sha256, versions, tolerances

All weights are re-randomised (also norms, biases, batch-norm statistics) so that a
forgotten bias/norm/scale shows.  Forward runs in float32, eager attention, one thread.
"""
import argparse, hashlib, io, json, logging, os, shutil, sys, time, zlib, traceback
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["COLUMNS"] = "300"
if os.environ.get("PYTHONHASHSEED") != "0":  # the load report iterates over sets
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable] + sys.argv)
import torch
import transformers as tf
from safetensors.torch import save_file, load_file

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True, warn_only=True)
tf.logging.set_verbosity_error()
try:
    tf.utils.logging.disable_progress_bar()
except Exception:
    pass

V = 96  # vocabulary
TOK = dict(vocab_size=V, pad_token_id=0, bos_token_id=1, eos_token_id=2)
ENC = dict(vocab_size=V, pad_token_id=0, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
           intermediate_size=48, max_position_embeddings=64)
DEC = dict(TOK, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
           intermediate_size=48, max_position_embeddings=64)
VIS = dict(image_size=16, patch_size=4, num_channels=3, hidden_size=32, num_hidden_layers=2,
           num_attention_heads=4, intermediate_size=48)
LBL = dict(num_labels=3)

# name, model class, auto class, config factory, kind
# kinds: enc (right pad), dec (left pad + generate), s2s, vis, clip, audio, whisper, vlm
CASES = []
def case(name, cls, auto, cfg, kind, **kw):
    CASES.append((name, cls, auto, cfg, kind, kw))

# ---- encoders and task heads
BERT = lambda **k: tf.BertConfig(**{**ENC, "type_vocab_size": 2, **k})
case("bert", "BertModel", "AutoModel", BERT, "enc", tti=True)
case("bert-mlm", "BertForMaskedLM", "AutoModelForMaskedLM", BERT, "enc", tti=True, labels="lm")
case("bert-seqcls", "BertForSequenceClassification", "AutoModelForSequenceClassification", lambda: BERT(**LBL), "enc", tti=True, labels="seq")
case("bert-tokcls", "BertForTokenClassification", "AutoModelForTokenClassification", lambda: BERT(**LBL), "enc", tti=True, labels="tok")
case("bert-qa", "BertForQuestionAnswering", "AutoModelForQuestionAnswering", BERT, "enc", tti=True, labels="qa")
case("bert-nsp-pretrain", "BertForPreTraining", "AutoModelForPreTraining", BERT, "enc", tti=True)
ROB = lambda **k: tf.RobertaConfig(**{**ENC, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, **k})
case("roberta-mlm", "RobertaForMaskedLM", "AutoModelForMaskedLM", ROB, "enc", labels="lm")
case("roberta-seqcls", "RobertaForSequenceClassification", "AutoModelForSequenceClassification", lambda: ROB(**LBL), "enc", labels="seq")
case("xlm-roberta-tokcls", "XLMRobertaForTokenClassification", "AutoModelForTokenClassification",
     lambda: tf.XLMRobertaConfig(**{**ENC, "type_vocab_size": 1, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, **LBL}), "enc", labels="tok")
DB = lambda **k: tf.DistilBertConfig(**{**dict(vocab_size=V, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=64, pad_token_id=0), **k})
case("distilbert", "DistilBertModel", "AutoModel", DB, "enc")
case("distilbert-seqcls", "DistilBertForSequenceClassification", "AutoModelForSequenceClassification", lambda: DB(**LBL), "enc", labels="seq")
case("distilbert-qa", "DistilBertForQuestionAnswering", "AutoModelForQuestionAnswering", DB, "enc", labels="qa")
case("albert", "AlbertForMaskedLM", "AutoModelForMaskedLM", lambda: tf.AlbertConfig(**{**ENC, "embedding_size": 16, "type_vocab_size": 2}), "enc", tti=True)
case("electra", "ElectraForTokenClassification", "AutoModelForTokenClassification", lambda: tf.ElectraConfig(**{**ENC, "embedding_size": 16, **LBL}), "enc", labels="tok")
case("mpnet", "MPNetModel", "AutoModel", lambda: tf.MPNetConfig(**{**ENC, "pad_token_id": 1}), "enc")
case("deberta-v2", "DebertaV2ForSequenceClassification", "AutoModelForSequenceClassification",
     lambda: tf.DebertaV2Config(**{**ENC, "type_vocab_size": 0, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
                                   "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, **LBL}), "enc")
case("modernbert", "ModernBertForMaskedLM", "AutoModelForMaskedLM",
     lambda: tf.ModernBertConfig(**{**ENC, "num_hidden_layers": 4, "global_attn_every_n_layers": 3, "local_attention": 8,
                                    "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}), "enc")
# ---- decoders
case("gpt2", "GPT2LMHeadModel", "AutoModelForCausalLM", lambda: tf.GPT2Config(**TOK, n_embd=32, n_layer=2, n_head=4, n_positions=64), "dec")
case("gpt-neox", "GPTNeoXForCausalLM", "AutoModelForCausalLM", lambda: tf.GPTNeoXConfig(**{**DEC, "rotary_pct": 0.25}), "dec")
case("opt", "OPTForCausalLM", "AutoModelForCausalLM", lambda: tf.OPTConfig(**TOK, hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48, max_position_embeddings=64), "dec")
case("bloom", "BloomForCausalLM", "AutoModelForCausalLM", lambda: tf.BloomConfig(**TOK, hidden_size=32, n_layer=2, n_head=4), "dec")
case("falcon", "FalconForCausalLM", "AutoModelForCausalLM", lambda: tf.FalconConfig(**TOK, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True, alibi=False), "dec")
case("phi", "PhiForCausalLM", "AutoModelForCausalLM", lambda: tf.PhiConfig(**{**DEC, "num_key_value_heads": 4}), "dec")
case("llama", "LlamaForCausalLM", "AutoModelForCausalLM", lambda: tf.LlamaConfig(**DEC), "dec")
case("llama-tied-rope-llama3", "LlamaForCausalLM", "AutoModelForCausalLM", lambda: tf.LlamaConfig(**{**DEC, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}}), "dec")
case("llama-rope-yarn", "LlamaForCausalLM", "AutoModelForCausalLM", lambda: tf.LlamaConfig(**{**DEC, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 16}}), "dec")
case("llama-rope-linear", "LlamaForCausalLM", "AutoModelForCausalLM", lambda: tf.LlamaConfig(**{**DEC, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}}), "dec")
case("llama-rope-dynamic", "LlamaForCausalLM", "AutoModelForCausalLM", lambda: tf.LlamaConfig(**{**DEC, "max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}}), "dec")
case("llama-seqcls", "LlamaForSequenceClassification", "AutoModelForSequenceClassification", lambda: tf.LlamaConfig(**{**DEC, **LBL}), "enc")
case("mistral-swa", "MistralForCausalLM", "AutoModelForCausalLM", lambda: tf.MistralConfig(**{**DEC, "sliding_window": 4, "head_dim": 8}), "dec")
case("qwen2", "Qwen2ForCausalLM", "AutoModelForCausalLM", lambda: tf.Qwen2Config(**{**DEC, "tie_word_embeddings": True}), "dec")
case("qwen3", "Qwen3ForCausalLM", "AutoModelForCausalLM", lambda: tf.Qwen3Config(**{**DEC, "head_dim": 16, "tie_word_embeddings": True}), "dec")
case("gemma2", "Gemma2ForCausalLM", "AutoModelForCausalLM", lambda: tf.Gemma2Config(**{**DEC, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}), "dec")
case("gemma3-text", "Gemma3ForCausalLM", "AutoModelForCausalLM", lambda: tf.Gemma3TextConfig(**{**DEC, "num_hidden_layers": 3, "head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"]}), "dec")
case("phi3-longrope", "Phi3ForCausalLM", "AutoModelForCausalLM", lambda: tf.Phi3Config(**{**DEC, "original_max_position_embeddings": 16, "sliding_window": None, "rope_parameters": {"rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 3.0, 4.0], "original_max_position_embeddings": 16, "partial_rotary_factor": 1.0}}), "dec")
case("olmo2", "Olmo2ForCausalLM", "AutoModelForCausalLM", lambda: tf.Olmo2Config(**DEC), "dec")
case("cohere", "CohereForCausalLM", "AutoModelForCausalLM", lambda: tf.CohereConfig(**{**DEC, "use_qk_norm": True, "logit_scale": 0.25}), "dec")
case("smollm3-nope", "SmolLM3ForCausalLM", "AutoModelForCausalLM", lambda: tf.SmolLM3Config(**{**DEC, "no_rope_layers": [1, 0], "no_rope_layer_interval": 2}), "dec")
case("mixtral", "MixtralForCausalLM", "AutoModelForCausalLM", lambda: tf.MixtralConfig(**{**DEC, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}), "dec")
case("qwen3-moe", "Qwen3MoeForCausalLM", "AutoModelForCausalLM", lambda: tf.Qwen3MoeConfig(**{**DEC, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "decoder_sparse_step": 1, "norm_topk_prob": True}), "dec")
case("deepseek-v3", "DeepseekV3ForCausalLM", "AutoModelForCausalLM", lambda: tf.DeepseekV3Config(**{**DEC, "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 8, "v_head_dim": 8, "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 16}), "dec")
case("gpt-oss", "GptOssForCausalLM", "AutoModelForCausalLM", lambda: tf.GptOssConfig(**{**DEC, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"], "rope_parameters": {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False, "original_max_position_embeddings": 16}}), "dec")
case("mamba", "MambaForCausalLM", "AutoModelForCausalLM", lambda: tf.MambaConfig(**TOK, hidden_size=32, num_hidden_layers=2, state_size=8, conv_kernel=4, expand=2), "dec", nopad=True)
case("qwen3-next", "Qwen3NextForCausalLM", "AutoModelForCausalLM", lambda: tf.Qwen3NextConfig(**{**DEC, "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "layer_types": ["linear_attention", "full_attention"]}), "dec", nopad=True)
# ---- encoder-decoder
T5K = dict(vocab_size=V, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=4, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, relative_attention_num_buckets=8, relative_attention_max_distance=20)
case("t5", "T5ForConditionalGeneration", "AutoModelForSeq2SeqLM", lambda: tf.T5Config(**T5K), "s2s")
case("t5-v1_1-gated", "T5ForConditionalGeneration", "AutoModelForSeq2SeqLM", lambda: tf.T5Config(**{**T5K, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}), "s2s")
BK = dict(vocab_size=V, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2)
case("bart", "BartForConditionalGeneration", "AutoModelForSeq2SeqLM", lambda: tf.BartConfig(**BK, forced_eos_token_id=None), "s2s")
case("marian", "MarianMTModel", "AutoModelForSeq2SeqLM", lambda: tf.MarianConfig(**{**BK, "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0, "forced_eos_token_id": None}), "s2s", skip="embed_positions")
# ---- vision
case("vit", "ViTForImageClassification", "AutoModelForImageClassification", lambda: tf.ViTConfig(**VIS, **LBL), "vis")
case("dinov2", "Dinov2Model", "AutoModel", lambda: tf.Dinov2Config(**VIS), "vis")
case("resnet", "ResNetForImageClassification", "AutoModelForImageClassification", lambda: tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="bottleneck", **LBL), "vis")
case("convnext", "ConvNextForImageClassification", "AutoModelForImageClassification", lambda: tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=4, image_size=16, **LBL), "vis")
case("swin", "SwinForImageClassification", "AutoModelForImageClassification", lambda: tf.SwinConfig(image_size=16, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[2, 2], window_size=2, **LBL), "vis")
case("segformer", "SegformerForSemanticSegmentation", "AutoModelForSemanticSegmentation", lambda: tf.SegformerConfig(image_size=32, num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, **LBL), "vis", img=32)
CT = dict(vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=16, projection_dim=16, bos_token_id=1, eos_token_id=2, pad_token_id=0)
case("clip", "CLIPModel", "AutoModel", lambda: tf.CLIPConfig(text_config=CT, vision_config=dict(VIS, projection_dim=16), projection_dim=16), "clip")
case("siglip", "SiglipModel", "AutoModel", lambda: tf.SiglipConfig(text_config=dict(CT, projection_size=32), vision_config=VIS), "clip")
# ---- audio
W2V = dict(vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, conv_dim=(8, 8), conv_kernel=(10, 3), conv_stride=(5, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2, pad_token_id=0)
case("wav2vec2-ctc", "Wav2Vec2ForCTC", "AutoModelForCTC", lambda: tf.Wav2Vec2Config(**W2V), "audio")
case("whisper", "WhisperForConditionalGeneration", "AutoModelForSpeechSeq2Seq", lambda: tf.WhisperConfig(vocab_size=V, num_mel_bins=16, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_source_positions=20, max_target_positions=32, pad_token_id=2, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None), "whisper")
# ---- vision-language
case("llava", "LlavaForConditionalGeneration", "AutoModelForImageTextToText", lambda: tf.LlavaConfig(vision_config=tf.CLIPVisionConfig(**VIS), text_config=tf.LlamaConfig(**DEC), image_token_id=90, vision_feature_layer=-2, vision_feature_select_strategy="default"), "vlm")
case("qwen2-vl", "Qwen2VLForConditionalGeneration", "AutoModelForImageTextToText", lambda: tf.Qwen2VLConfig(text_config=dict(DEC, rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}), vision_config=dict(depth=2, embed_dim=32, hidden_size=32, num_heads=4, mlp_ratio=2, in_channels=3, patch_size=4, spatial_merge_size=2, temporal_patch_size=2), image_token_id=90, video_token_id=91, vision_start_token_id=92, vision_end_token_id=93, tie_word_embeddings=False), "qwen-vl")

SKIP_GRAD = set()

def gen(name):
    return torch.Generator().manual_seed(zlib.crc32(name.encode()))

def randomise(model, g, skip=None):
    seen = set()
    with torch.no_grad():
        for n, p in model.named_parameters():
            if p.data_ptr() in seen or (skip and skip in n):
                continue
            seen.add(p.data_ptr())
            leaf = n.rsplit(".", 1)[-1]
            if leaf in ("A_log", "dt_bias", "D", "logit_scale", "logit_bias"):
                p.add_(0.05 * torch.randn(p.shape, generator=g).to(p.dtype))
            elif p.ndim <= 1:
                near_one = leaf.startswith("weight") and p.numel() and float(p.float().mean()) > 0.5
                base = 1.0 if near_one else (0.0 if "norm" not in n or leaf == "bias" else float(p.float().mean()) if p.numel() else 0.0)
                p.copy_((base + 0.1 * torch.randn(p.shape, generator=g)).to(p.dtype))
            else:
                emb = "embed" in n and p.ndim == 2
                std = 0.6 if emb else 1.2 / (p[0].numel() ** 0.5)
                p.copy_((std * torch.randn(p.shape, generator=g)).to(p.dtype))
        for n, b in model.named_buffers():
            if n.endswith("running_mean"):
                b.copy_(0.1 * torch.randn(b.shape, generator=g))
            elif n.endswith("running_var"):
                b.copy_(1.0 + 0.3 * torch.rand(b.shape, generator=g))
            elif n.endswith("e_score_correction_bias"):
                b.copy_(0.1 * torch.randn(b.shape, generator=g).to(b.dtype))

def ids(g, b, t, lo=5, hi=88):
    return torch.randint(lo, hi, (b, t), generator=g)

def fl(g, *shape):  # exact short decimals: multiples of 1/16 in [-2,2]
    return torch.randint(-32, 33, shape, generator=g).float() / 16.0

def jt(t):
    return {"dtype": str(t.dtype).replace("torch.", ""), "shape": list(t.shape), "data": t.flatten().tolist()}

def make_inputs(kind, cfg, g, kw):
    B, T = 2, 12
    gen_kw = None
    if kind == "enc":
        x = ids(g, B, T); m = torch.ones(B, T, dtype=torch.long)
        x[1, 9:] = cfg.pad_token_id; m[1, 9:] = 0
        inp = {"input_ids": x, "attention_mask": m}
        if kw.get("tti"):
            tt = torch.zeros(B, T, dtype=torch.long); tt[:, 6:] = 1
            inp["token_type_ids"] = tt
    elif kind == "dec":
        x = ids(g, B, T); m = torch.ones(B, T, dtype=torch.long)
        if not kw.get("nopad"):
            x[1, :3] = cfg.pad_token_id; m[1, :3] = 0
        inp = {"input_ids": x, "attention_mask": m}
        gen_kw = dict(max_new_tokens=10, min_new_tokens=10, do_sample=False)
    elif kind == "s2s":
        x = ids(g, B, T); m = torch.ones(B, T, dtype=torch.long)
        x[1, 9:] = cfg.pad_token_id; m[1, 9:] = 0
        inp = {"input_ids": x, "attention_mask": m, "decoder_input_ids": ids(g, B, 6)}
        gen_kw = dict(max_new_tokens=10, min_new_tokens=10, do_sample=False)
    elif kind == "vis":
        s = kw.get("img", 16)
        inp = {"pixel_values": fl(g, B, 3, s, s)}
    elif kind == "clip":
        x = ids(g, 3, 8); x[:, -1] = 2
        inp = {"input_ids": x, "pixel_values": fl(g, B, 3, 16, 16)}
    elif kind == "audio":
        inp = {"input_values": fl(g, B, 400)}
    elif kind == "whisper":
        inp = {"input_features": fl(g, B, 16, 40), "decoder_input_ids": ids(g, B, 6)}
        gen_kw = None
    elif kind == "vlm":
        x = ids(g, B, 8); x = torch.cat([x[:, :2], torch.full((B, 16), 90), x[:, 2:]], 1)
        inp = {"input_ids": x, "attention_mask": torch.ones_like(x), "pixel_values": fl(g, B, 3, 16, 16)}
        gen_kw = dict(max_new_tokens=8, min_new_tokens=8, do_sample=False)
    elif kind == "qwen-vl":
        # grid 1x4x4 patches -> 4 merged tokens; mm_token_type_ids: 0 text, 1 image
        t = ids(g, 1, 8)
        x = torch.cat([t[:, :2], torch.tensor([[92]]), torch.full((1, 4), 90), torch.tensor([[93]]), t[:, 2:]], 1)
        mm = torch.zeros_like(x); mm[x == 90] = 1
        inp = {"input_ids": x, "attention_mask": torch.ones_like(x), "pixel_values": fl(g, 16, 3 * 2 * 4 * 4),
               "image_grid_thw": torch.tensor([[1, 4, 4]]), "mm_token_type_ids": mm}
        gen_kw = dict(max_new_tokens=8, min_new_tokens=8, do_sample=False)
    return inp, gen_kw

def make_labels(kind, kw, inp, g):
    lab = kw.get("labels")
    if lab == "seq":
        return {"labels": torch.tensor([0, 2])}
    if lab == "tok":
        y = torch.randint(0, 3, inp["input_ids"].shape, generator=g); y[inp["attention_mask"] == 0] = -100
        return {"labels": y}
    if lab == "qa":
        return {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([4, 6])}
    if lab == "lm":
        y = inp["input_ids"].clone(); y[inp["attention_mask"] == 0] = -100
        return {"labels": y}
    if kind in ("dec", "vlm"):
        y = inp["input_ids"].clone(); y[inp["attention_mask"] == 0] = -100
        if kind == "vlm": y[y == 90] = -100
        return {"labels": y}
    if kind == "s2s":
        return {"labels": inp["decoder_input_ids"].clone()}
    return None

def collect(out):
    res = {}
    for k in out.keys():
        v = out[k]
        if isinstance(v, torch.Tensor) and v.is_floating_point():
            res[k] = v.detach().float().contiguous().clone()
        elif k in ("hidden_states", "encoder_hidden_states", "decoder_hidden_states") and v is not None:
            for i, h in enumerate(v):
                if isinstance(h, torch.Tensor):
                    res[f"{k}.{i}"] = h.detach().float().contiguous().clone()
    return res

def build(cls, cfg):
    c = cfg()
    c._attn_implementation = "eager"
    torch.manual_seed(0)
    return getattr(tf, cls)(c).float().eval()

MIN_MARGIN = 0.02

def run_case(spec, out):
    """Retry with another seed until greedy decoding is well separated (deterministic)."""
    best = None
    for salt in range(24):
        r = run_once(spec, out, salt)
        if r["margin"] is None or r["margin"] >= MIN_MARGIN:
            return r
        if best is None or r["margin"] > best[1]:
            best = (salt, r["margin"])
    return run_once(spec, out, best[0])

def run_once(spec, out, salt):
    name, cls, auto, cfg, kind, kw = spec
    g = gen(f"{name}#{salt}")
    d = os.path.join(out, name); shutil.rmtree(d, ignore_errors=True); os.makedirs(d)
    model = build(cls, cfg); randomise(model, g, kw.get('skip')); model.tie_weights()
    inp, gen_kw = make_inputs(kind, model.config, g, kw)
    model.save_pretrained(d)
    # everything below is computed on the RELOADED model, through the auto class
    ld, info = getattr(tf, auto).from_pretrained(d, output_loading_info=True, attn_implementation="eager", dtype=torch.float32)
    assert type(ld).__name__ == cls, (type(ld).__name__, cls)
    assert not any(info[k] for k in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    a, b = model.state_dict(), ld.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a), "reload differs"
    fw = dict(inp)
    with torch.no_grad():
        o = ld(**fw, output_hidden_states=True, return_dict=True)
    exp = collect(o)
    notes = {}
    if kind == "qwen-vl":
        pass
    # sdpa agreement
    try:
        ld2 = getattr(tf, auto).from_pretrained(d, attn_implementation="sdpa", dtype=torch.float32)
        with torch.no_grad():
            o2 = collect(ld2(**fw, return_dict=True))
        diffs = {}
        for k in o2:
            x, y = exp[k], o2[k]
            if "attention_mask" in inp and x.shape[:2] == inp["attention_mask"].shape:
                mm = inp["attention_mask"].bool(); x, y = x[mm], y[mm]
            diffs[k] = float((x - y).abs().max())
        notes["max_abs_diff_eager_vs_sdpa"] = diffs
    except Exception as e:
        notes["sdpa"] = f"unsupported: {type(e).__name__}: {str(e)[:80]}"
    ginfo = None
    if gen_kw:
        gi = {k: v for k, v in inp.items() if k != "decoder_input_ids"}
        with torch.no_grad():
            r = ld.generate(**gi, **gen_kw, return_dict_in_generate=True, output_logits=True)
        exp["generate.ids"] = r.sequences.to(torch.int64).contiguous()
        sc = torch.stack(r.logits, 1).float()
        top = sc.topk(2, -1).values
        margin = float((top[..., 0] - top[..., 1]).min())
        ginfo = dict(gen_kw, min_top2_margin=margin)
    lab = make_labels(kind, kw, inp, g)
    linfo = None
    if lab is not None:
        # a fresh model: generate() may have moved state (dynamic RoPE)
        ld = getattr(tf, auto).from_pretrained(d, attn_implementation="eager", dtype=torch.float32)
        tin = {k: v for k, v in fw.items() if not (kind == "s2s" and k == "decoder_input_ids")}
        o = ld(**tin, **lab, return_dict=True)
        o.loss.backward()
        exp["loss"] = o.loss.detach().float().reshape(1)
        gn = torch.sqrt(sum((p.grad.double() ** 2).sum() for p in ld.parameters() if p.grad is not None)).float()
        exp["grad_norm"] = gn.reshape(1)
        emb = ld.get_input_embeddings()
        n = next((n for n, p in ld.named_parameters() if p is emb.weight), None)
        if n and emb.weight.grad is not None:
            exp[f"grad.{n}"] = emb.weight.grad.float().contiguous().clone()
        linfo = {k: jt(v) for k, v in lab.items()}
    save_file(exp, os.path.join(d, "expected.safetensors"))
    with open(os.path.join(d, "inputs.json"), "w") as f:
        json.dump({"class": cls, "auto_class": auto, "kind": kind, "model_type": ld.config.model_type,
                   "tied_weights": dict(sorted(getattr(ld, "all_tied_weights_keys", {}).items())),
                   "num_parameters": ld.num_parameters(), "memory_footprint": ld.get_memory_footprint(),
                   "inputs": {k: jt(v) for k, v in inp.items()}, "labels": linfo, "generate": ginfo, "notes": notes},
                  f, separators=(",", ":"))
    return dict(params=ld.num_parameters(), margin=ginfo and ginfo["min_top2_margin"], sdpa=notes)

# ------------------------------------------------------------------ loader behaviour
class Cap(logging.Handler):
    def __init__(self):
        super().__init__(); self.t = []
    def emit(self, r):
        self.t.append((r.levelname, r.getMessage()))

def loader_cases(out):
    base = os.path.join(out, "_loader"); shutil.rmtree(base, ignore_errors=True); os.makedirs(base)
    S = dict(vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=16, pad_token_id=0)
    def mk(cls="BertForMaskedLM", **k):
        torch.manual_seed(0)
        m = getattr(tf, cls)(tf.BertConfig(**{**S, **k})).eval(); randomise(m, gen("loader-" + cls)); m.tie_weights(); return m
    x = {"input_ids": torch.arange(5, 13).reshape(1, 8)}
    rep = {}
    def attempt(name, cls, expect_cfg=None, **kw):
        d = os.path.join(base, name)
        lg = logging.getLogger("transformers.modeling_utils"); h = Cap(); lg.addHandler(h); old = lg.level; lg.setLevel(logging.WARNING)
        r = {"load_class": cls, "load_kwargs": {k: str(v) for k, v in kw.items()}}
        try:
            torch.manual_seed(1)
            m, i = getattr(tf, cls).from_pretrained(d, output_loading_info=True, **kw)
            for k in ("missing_keys", "unexpected_keys"):
                r[k] = sorted(i[k])
            r["mismatched_keys"] = sorted([k, list(a), list(b)] for k, a, b in i["mismatched_keys"])
            r["error_msgs"] = list(i["error_msgs"])
            r["dtype"] = str(m.dtype).replace("torch.", ""); r["training"] = m.training
            r["dtypes"] = sorted({str(p.dtype).replace("torch.", "") for p in m.parameters()})
            if not r["missing_keys"] and not r["mismatched_keys"]:
                with torch.no_grad():
                    o = m(**x, return_dict=True)
                e = collect(o); save_file(e, os.path.join(d, "expected.safetensors"))
            r["sha256_state"] = {k: hashlib.sha256(v.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()[:16]
                                 for k, v in m.state_dict().items() if k not in r["missing_keys"] and k not in [q[0] for q in r["mismatched_keys"]]}
        except Exception as e:
            r["exception"] = {"type": type(e).__name__, "message": str(e)}
        finally:
            lg.removeHandler(h); lg.setLevel(old)
        import re as _re
        r["log"] = [[l, _re.sub(r"\x1b?\[[0-9;]*m", "", t).replace(base, "<BASE>")] for l, t in h.t]
        if "exception" in r:
            r["exception"]["message"] = r["exception"]["message"].replace(base, "<BASE>")
        with open(os.path.join(d, "report.json"), "w") as f:
            json.dump(r, f, indent=1, sort_keys=True)
        rep[name] = r["exception"] if "exception" in r else {k: len(r[k]) for k in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    def D(n):
        d = os.path.join(base, n); os.makedirs(d, exist_ok=True); return d
    def fresh(n, m):  # config only
        d = D(n); m.config.architectures = [type(m).__name__]; m.config.save_pretrained(d); return d
    m = mk(); sd = {k: v.clone() for k, v in m.state_dict().items()}
    m.save_pretrained(D("single")); attempt("single", "BertForMaskedLM")
    m.save_pretrained(D("sharded"), max_shard_size="8KB"); attempt("sharded", "BertForMaskedLM")
    m.save_pretrained(D("variant"), variant="fp16"); attempt("variant", "BertForMaskedLM", variant="fp16")
    m.save_pretrained(os.path.join(D("subfolder"), "sub")); attempt("subfolder", "BertForMaskedLM", subfolder="sub")
    d = fresh("bin-zip", m); torch.save(m.state_dict(), d + "/pytorch_model.bin"); attempt("bin-zip", "BertForMaskedLM")
    d = fresh("bin-legacy", m); torch.save(m.state_dict(), d + "/pytorch_model.bin", _use_new_zipfile_serialization=False); attempt("bin-legacy", "BertForMaskedLM")
    d = fresh("bin-sharded", m); ks = list(m.state_dict()); wm = {}
    for i in range(2):
        fn = f"pytorch_model-{i+1:05d}-of-00002.bin"; part = {k: m.state_dict()[k].clone() for k in ks[i::2]}; torch.save(part, f"{d}/{fn}"); wm.update({k: fn for k in part})
    json.dump({"metadata": {"total_size": sum(t.numel() * 4 for t in m.state_dict().values())}, "weight_map": wm}, open(d + "/pytorch_model.bin.index.json", "w")); attempt("bin-sharded", "BertForMaskedLM")
    class Evil:
        def __reduce__(self): return (os.getcwd, ())
    d = fresh("bin-malicious", m); torch.save({**{k: v for k, v in m.state_dict().items()}, "x": Evil()}, d + "/pytorch_model.bin"); attempt("bin-malicious", "BertForMaskedLM")
    d = fresh("bin-use-safetensors-true", m); torch.save(m.state_dict(), d + "/pytorch_model.bin"); attempt("bin-use-safetensors-true", "BertForMaskedLM", use_safetensors=True)
    fresh("no-weights", m); attempt("no-weights", "BertForMaskedLM")
    d = D("no-config"); save_file({"a": torch.zeros(1)}, d + "/model.safetensors"); attempt("no-config", "BertForMaskedLM")
    d = fresh("gamma-beta", m); leg = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v.clone() for k, v in sd.items() if k not in ("cls.predictions.decoder.weight", "cls.predictions.decoder.bias")}
    save_file(leg, d + "/model.safetensors", metadata={"format": "pt"}); attempt("gamma-beta", "BertForMaskedLM")
    b = mk("BertModel"); b.save_pretrained(D("base-into-head")); attempt("base-into-head", "BertForSequenceClassification")
    m.save_pretrained(D("head-into-base")); attempt("head-into-base", "BertModel")
    m.save_pretrained(D("mismatch-raise")); attempt("mismatch-raise", "BertForMaskedLM", vocab_size=40)
    m.save_pretrained(D("mismatch-ignore")); attempt("mismatch-ignore", "BertForMaskedLM", vocab_size=40, ignore_mismatched_sizes=True)
    c = mk("BertForSequenceClassification", num_labels=3); c.save_pretrained(D("num-labels-mismatch")); attempt("num-labels-mismatch", "BertForSequenceClassification", num_labels=5, ignore_mismatched_sizes=True)
    d = fresh("missing-and-unexpected", m); t = {k: v.clone() for k, v in sd.items() if not k.startswith("bert.encoder.layer.1.") and not k.startswith("cls.predictions.decoder")}; t["foo.bar.0.weight"] = torch.ones(2); t["foo.bar.1.weight"] = torch.ones(2)
    save_file(t, d + "/model.safetensors", metadata={"format": "pt"}); attempt("missing-and-unexpected", "BertForMaskedLM")
    d = fresh("no-format-metadata", m); save_file({k: v.clone() for k, v in sd.items()}, d + "/model.safetensors"); attempt("no-format-metadata", "BertForMaskedLM")
    d = fresh("key-mapping", m); save_file({"zz." + k: v.clone() for k, v in sd.items()}, d + "/model.safetensors", metadata={"format": "pt"}); attempt("key-mapping", "BertForMaskedLM", key_mapping={r"^zz\.": ""})
    h = mk().half(); h.save_pretrained(D("fp16-auto")); attempt("fp16-auto", "BertForMaskedLM")
    mk().half().save_pretrained(D("fp16-to-fp32")); attempt("fp16-to-fp32", "BertForMaskedLM", dtype="float32")
    d = D("bf16-noconfigdtype"); mk().bfloat16().save_pretrained(d); j = json.load(open(d + "/config.json")); j.pop("dtype", None); json.dump(j, open(d + "/config.json", "w")); attempt("bf16-noconfigdtype", "BertForMaskedLM")
    mk().save_pretrained(D("dtype-int-error")); attempt("dtype-int-error", "BertForMaskedLM", dtype="int64")
    mk().save_pretrained(D("dtype-bad-str")); attempt("dtype-bad-str", "BertForMaskedLM", dtype="flot32")
    d = D("truncated"); m.save_pretrained(d); q = d + "/model.safetensors"; raw = open(q, "rb").read(); open(q, "wb").write(raw[: len(raw) // 2]); attempt("truncated", "BertForMaskedLM")
    d = D("shard-missing"); m.save_pretrained(d, max_shard_size="8KB"); fs = sorted(f for f in os.listdir(d) if f.endswith(".safetensors")); os.remove(os.path.join(d, fs[-1])); attempt("shard-missing", "BertForMaskedLM")
    d = D("index-key-missing-in-shard"); m.save_pretrained(d, max_shard_size="8KB"); p = d + "/model.safetensors.index.json"; j = json.load(open(p)); f0 = sorted(set(j["weight_map"].values()))[0]; tt = load_file(f"{d}/{f0}"); k0 = sorted(tt)[0]; tt.pop(k0); save_file(tt, f"{d}/{f0}", metadata={"format": "pt"}); attempt("index-key-missing-in-shard", "BertForMaskedLM")
    # tied embeddings stored twice with DIFFERENT values: which wins?
    d = fresh("tied-both-present-differ", m); t = {k: v.clone() for k, v in sd.items()}; t["cls.predictions.decoder.weight"] = t["cls.predictions.decoder.weight"] + 1.0; save_file(t, d + "/model.safetensors", metadata={"format": "pt"}); attempt("tied-both-present-differ", "BertForMaskedLM")
    d = fresh("tied-only-head-present", m); t = {k: v.clone() for k, v in sd.items()}; t.pop("bert.embeddings.word_embeddings.weight"); save_file(t, d + "/model.safetensors", metadata={"format": "pt"}); attempt("tied-only-head-present", "BertForMaskedLM")
    return rep

def main():
    ap = argparse.ArgumentParser(); ap.add_argument("out"); ap.add_argument("--only"); ap.add_argument("--check", action="store_true"); ap.add_argument("--no-loader-cases", action="store_true")
    a = ap.parse_args(); os.makedirs(a.out, exist_ok=True)
    only = set(a.only.split(",")) if a.only else None
    res, bad = {}, {}
    for s in CASES:
        if only and s[0] not in only: continue
        t = time.time()
        try:
            res[s[0]] = run_case(s, a.out); print(f"ok   {s[0]:24s} {time.time()-t:5.1f}s {res[s[0]]}", flush=True)
        except Exception as e:
            bad[s[0]] = f"{type(e).__name__}: {e}"; print(f"FAIL {s[0]:24s} {type(e).__name__}: {str(e)[:300]}", flush=True)
            if os.environ.get("TB"): traceback.print_exc()
    rep = {}
    if not a.no_loader_cases and not only:
        rep = loader_cases(a.out)
        for k, v in rep.items(): print("loader", k, str(v)[:160], flush=True)
    files = {}
    for r, _, fs in os.walk(a.out):
        for f in sorted(fs):
            p = os.path.join(r, f)
            if os.path.relpath(p, a.out) in ("MANIFEST.json", "README.md"): continue
            files[os.path.relpath(p, a.out)] = [os.path.getsize(p), hashlib.sha256(open(p, "rb").read()).hexdigest()]
    tot = sum(v[0] for v in files.values())
    man = {"transformers": tf.__version__, "torch": torch.__version__, "total_bytes": tot, "files": dict(sorted(files.items())), "failed": bad}
    json.dump(man, open(os.path.join(a.out, "MANIFEST.json"), "w"), indent=0)
    with open(os.path.join(a.out, "README.md"), "w") as f:
        f.write(f"# Tiny reference checkpoints\n\nMade by gen_tiny_refs.py with transformers {tf.__version__}, torch {torch.__version__} (CPU, float32, eager attention, 1 thread). {len(res)} architecture cases, {len(rep)} loader cases, {tot} bytes.\n\n"
                "Rules for a reader: load DIR/<case> by the auto class in inputs.json; feed `inputs`; compare every float tensor of expected.safetensors by name (logits, last_hidden_state, hidden_states.N, ...); where `attention_mask` is 0 the value of a position is unspecified (skip it); suggested tolerance |d| <= 1e-5 + 1e-4*|x| in float32; `generate.ids` must be equal exactly (inputs.json/generate/min_top2_margin says how safe that is); `loss`, `grad_norm`, `grad.<input embedding>` come from inputs+`labels` (s2s: decoder_input_ids left out, made from labels by shift-right); for tied models the gradient is the sum of both uses. `_loader/<case>/report.json` is what transformers reported (keys, log text, exception), with `sha256_state` of every loaded tensor.\n\n"
                "| case | parameters | greedy margin | eager vs sdpa |\n|---|---|---|---|\n")
        for k, v in res.items():
            sd = v["sdpa"].get("max_abs_diff_eager_vs_sdpa"); f.write(f"| {k} | {v['params']} | {v['margin'] and round(v['margin'],4)} | {max(sd.values()) if sd else v['sdpa'].get('sdpa')} |\n")
        f.write("\n| loader case | outcome |\n|---|---|\n")
        for k, v in rep.items(): f.write(f"| {k} | {str(v)[:150].replace(chr(10),' ').replace('|','/')} |\n")
    print("total bytes", tot, "cases", len(res), "failed", bad)
    if a.check:
        import subprocess, tempfile
        t2 = tempfile.mkdtemp(); subprocess.run([sys.executable, __file__, t2] + (["--only", a.only] if a.only else []), check=True, stdout=subprocess.DEVNULL)
        m2 = json.load(open(t2 + "/MANIFEST.json")); df = [k for k in man["files"] if m2["files"].get(k) != man["files"][k] and k != "_loader/bin-legacy/pytorch_model.bin"]  # legacy torch.save names storages by memory address
        print("deterministic:", not df, df[:10]); shutil.rmtree(t2)

if __name__ == "__main__":
    main()
