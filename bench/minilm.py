"""all-MiniLM-L6-v2 as its model card shows it, with plain transformers: mean pooling, length 1.

Requirements: torch 2.15.0, transformers 5.23.0
"""

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging

logging.disable_progress_bar()

MAX_LENGTH = 256  # max_seq_length of its sentence_bert_config.json


class MiniLM:
    def __init__(self, path):
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        self.model = AutoModel.from_pretrained(path)

    @torch.inference_mode()
    def embed(self, texts):
        batch = self.tokenizer(texts, padding=True, truncation=True, max_length=MAX_LENGTH, return_tensors="pt")
        x = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(x.dtype)
        y = (x * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(y, dim=1)
