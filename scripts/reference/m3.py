"""M3 and CLaMP 2's music half in plain PyTorch on transformers: the reference that tests and benchmarks compare with.

Names of the state dict, forward pass, loss and features are the original's (github sanderwood/clamp2, code/utils.py,
train_m3.py and extract_clamp2.py): pieces are padded to `patch_length`, patches are one-hot.
"""

import dataclasses

import torch
from torch import nn
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

VOCABULARY = 128


@dataclasses.dataclass(frozen=True)
class Architecture:
    patch_size: int = 64
    patch_length: int = 512
    patch_layers: int = 12
    token_layers: int = 3
    hidden_size: int = 768
    dropout: float = 0.1

    def bert(self):
        return BertConfig(
            vocab_size=1, hidden_size=self.hidden_size, num_hidden_layers=self.patch_layers,
            num_attention_heads=self.hidden_size // 64, intermediate_size=4 * self.hidden_size,
            max_position_embeddings=self.patch_length, hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
        )

    def gpt2(self):
        return GPT2Config(
            vocab_size=VOCABULARY, n_positions=self.patch_size, n_embd=self.hidden_size, n_layer=self.token_layers,
            n_head=self.hidden_size // 64, n_inner=4 * self.hidden_size, resid_pdrop=self.dropout,
            embd_pdrop=self.dropout, attn_pdrop=self.dropout, bos_token_id=None, eos_token_id=None,
        )


class Encoder(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.patch_embedding = nn.Linear(architecture.patch_size * VOCABULARY, architecture.hidden_size)
        nn.init.normal_(self.patch_embedding.weight, std=0.02)
        self.base = BertModel(architecture.bert())

    def forward(self, patches, mask):
        """patches: int64 [pieces, patches, size], mask: [pieces, patches] -> [pieces, patches, hidden]"""
        one_hot = nn.functional.one_hot(patches, VOCABULARY).flatten(2).to(self.patch_embedding.weight.dtype)
        return self.base(inputs_embeds=self.patch_embedding(one_hot), attention_mask=mask).last_hidden_state


class Decoder(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.base = GPT2LMHeadModel(architecture.gpt2())

    def forward(self, features, targets):
        """features: [n, hidden], targets: int64 [n, size] -> the mean loss over the characters behind the first"""
        embedded = self.base.transformer.wte(targets)
        embedded = torch.cat([features[:, None], embedded[:, 1:]], dim=1)
        labels = targets.masked_fill(targets == 0, -100)
        return self.base(inputs_embeds=embedded, attention_mask=(targets != 0).long(), labels=labels).loss


class M3(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.encoder = Encoder(architecture)
        self.decoder = Decoder(architecture)

    def forward(self, patches, mask, selected, targets):
        """selected: bool [pieces, patches], targets as patches"""
        return self.decoder(self.encoder(patches, mask)[selected], targets[selected])


class Clamp2(nn.Module):
    """The music half of CLaMP 2, with names that a text half would have."""

    def __init__(self, architecture, width):
        super().__init__()
        self.text_model = nn.Embedding(3, architecture.hidden_size)
        self.text_proj = nn.Linear(architecture.hidden_size, width)
        self.music_model = Encoder(architecture)
        self.music_proj = nn.Linear(architecture.hidden_size, width)


def feature(encoder, projection, patches, patch_length):
    """The feature of one piece, patches int64 [n, size]: padded segments, weighted by length."""
    length = len(patches)
    segments = [patches[start:start + patch_length] for start in range(0, length, patch_length)]
    segments[-1] = patches[-patch_length:]
    features = []
    for segment in segments:
        padded = torch.zeros(1, patch_length, patches.shape[1], dtype=torch.long, device=patches.device)
        padded[0, :len(segment)] = segment
        mask = (torch.arange(patch_length, device=patches.device) < len(segment)).float()[None]
        hidden = encoder(padded, mask) * mask[..., None]
        features.append(projection(hidden.sum(dim=1) / mask.sum(dim=1, keepdim=True)))
    weights = [patch_length] * (length // patch_length) + [length % patch_length] * (length % patch_length > 0)
    weights = torch.tensor(weights, device=patches.device)[:, None]
    return (torch.cat(features) * weights).sum(dim=0) / weights.sum()
