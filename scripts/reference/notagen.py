"""NotaGen in plain PyTorch on transformers' GPT-2: the reference that the tests and benchmarks compare with.

Names of the state dict, forward pass, loss and generation are the original's (pretrain/utils.py and
inference/inference.py); nothing is cached and nothing is clever. The golden files and scripts/bench use it.
"""

import dataclasses
import time

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from samplings import temperature_sampling, top_k_sampling, top_p_sampling
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

import patches as patching
from patches import BOS, EOS, PAD, PATCH_SIZE

VOCABULARY = 128


@dataclasses.dataclass(frozen=True)
class Architecture:
    patch_length: int
    patch_layers: int
    char_layers: int
    hidden_size: int
    dropout: float = 0.1

    def gpt2(self, layers, positions, vocabulary, attention):
        return GPT2Config(
            n_layer=layers, n_positions=positions, n_embd=self.hidden_size, n_head=self.hidden_size // 64,
            vocab_size=vocabulary, resid_pdrop=self.dropout, embd_pdrop=self.dropout, attn_pdrop=self.dropout,
            use_cache=False, bos_token_id=None, eos_token_id=None, attn_implementation=attention,
        )


SMALL = Architecture(2048, 12, 3, 768)
MEDIUM = Architecture(2048, 16, 3, 1024)
LARGE = Architecture(1024, 20, 6, 1280)


class PatchLevelDecoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.patch_embedding = nn.Linear(PATCH_SIZE * VOCABULARY, config.n_embd)
        nn.init.normal_(self.patch_embedding.weight, std=0.02)
        self.base = GPT2Model(config)

    def forward(self, patches, mask=None):
        """patches: int64 [pieces, patches, 16] -> [pieces, patches, hidden]"""
        one_hot = nn.functional.one_hot(patches, VOCABULARY).to(self.patch_embedding.weight.dtype)
        return self.base(inputs_embeds=self.patch_embedding(one_hot.flatten(2)), attention_mask=mask).last_hidden_state


class CharLevelDecoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.base = GPT2LMHeadModel(config)

    def forward(self, encoded, characters):
        """encoded: [n, hidden], characters: int64 [n, k] -> logits [n, k + 1, 128] of the characters and one more"""
        embedded = self.base.transformer.wte(characters)
        mask = torch.cat([torch.ones_like(characters[:, :1]), (characters != PAD).long()], dim=1)
        return self.base(inputs_embeds=torch.cat([encoded[:, None], embedded], dim=1), attention_mask=mask).logits


class NotaGen(nn.Module):
    def __init__(self, architecture, attention="sdpa"):
        super().__init__()
        a = self.architecture = architecture
        self.patch_level_decoder = PatchLevelDecoder(a.gpt2(a.patch_layers, a.patch_length, 1, attention))
        self.char_level_decoder = CharLevelDecoder(a.gpt2(a.char_layers, PATCH_SIZE + 1, VOCABULARY, attention))

    def forward(self, patches, mask):
        """patches: int64 [pieces, patches, 16], padded at the end; mask: int64 [pieces, patches].

        Returns (logits [n, 16, 128], targets [n, 16], piece [n]) for the n patches that are predicted:
        all but the first of each piece. Targets that are PAD do not count.
        """
        encoded = self.patch_level_decoder(patches, mask)
        predicted = mask[:, 1:] == 1
        targets = patches[:, 1:][predicted]
        logits = self.char_level_decoder(encoded[:, :-1][predicted], targets)[:, :-1]
        return logits, targets, predicted.nonzero()[:, 0]

    def loss(self, patches, mask):
        """Mean over the characters that count, in float32 whatever the autocast type."""
        logits, targets, _ = self(patches, mask)
        return nn.functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=PAD)

    def log_probability(self, patches, mask):
        """Per piece: the sum of the log-probabilities of its characters, and how many they are."""
        logits, targets, piece = self(patches, mask)
        chosen = logits.float().log_softmax(-1).gather(-1, targets[..., None])[..., 0]
        counts = (targets != PAD).long()
        zero = torch.zeros(len(patches))
        return zero.double().index_add(0, piece, (chosen * counts).sum(1).double()), zero.long().index_add(0, piece, counts.sum(1))

    @torch.no_grad()
    def next_patch(self, flat, top_k=0, top_p=1.0, temperature=1.0, watch=None):
        """The rest of the next patch after `flat` (a list of character codes), as the original samples it.

        `watch`, if given, is called with the logits of every character.
        """
        open_characters = len(flat) % PATCH_SIZE
        whole, characters = flat[:len(flat) - open_characters], flat[len(flat) - open_characters:]
        device = next(self.parameters()).device
        encoded = self.patch_level_decoder(torch.tensor(whole, device=device).reshape(1, -1, PATCH_SIZE))[0, -1:]
        generated = []
        while len(characters) < PATCH_SIZE:
            embedded = self.char_level_decoder.base.transformer.wte(torch.tensor(characters, dtype=torch.long, device=device))
            inputs = torch.cat([encoded, embedded])[None]
            logits = self.char_level_decoder.base(inputs_embeds=inputs).logits[0, -1]
            if watch:
                watch(logits)
            generated.append(sample(logits.softmax(-1).float().cpu().numpy(), top_k, top_p, temperature))
            characters = characters + generated[-1:]
        return generated


def normalise(probabilities):
    """The original's guard against sums that are not 1: float64, no NaN, nothing negative, nothing quite zero."""
    p = np.nan_to_num(np.asarray(probabilities, dtype=np.float64), nan=0.0).clip(min=0) + 1e-12
    return p / p.sum()


def sampling_distribution(probabilities, top_k, top_p, temperature):
    """What a character is drawn from: top-k, then top-p, then temperature, with the guard before each."""
    p = top_k_sampling(normalise(probabilities), top_k=top_k, return_probs=True)
    p = top_p_sampling(normalise(p), top_p=top_p, return_probs=True)
    return temperature_sampling(normalise(p), temperature=temperature, return_probs=True)


def sample(probabilities, top_k, top_p, temperature):
    p = sampling_distribution(probabilities, top_k, top_p, temperature)
    return int(np.random.choice(VOCABULARY, p=p))


def generate_piece(model, prompt_lines=(), max_characters=102_400, max_seconds=20 * 60, **sampling):
    """One piece the original's way. Returns (text, ended, slides): `ended` by the model's own end patch."""
    started = time.monotonic()
    text = "".join(prompt_lines)
    flat = sum(patching.encode_prompt(prompt_lines), [])
    in_body, keep, slides = False, None, 0
    while True:
        row = model.next_patch(flat, **sampling)
        if not in_body and patching.decode([row]).startswith("[r:"):
            in_body = True
            first = [ord(c) for c in "[r:0/"]
            row = first + model.next_patch(flat + first, **sampling)
        if row[:2] == [BOS, EOS]:
            return text, True, slides
        text += patching.decode([row])
        end = row.index(EOS) + 1 if EOS in row else len(row)
        flat = flat + row[:end] + [PAD] * (len(row) - end)
        if len(text) > max_characters or time.monotonic() - started > max_seconds:
            return text, False, slides
        if len(flat) >= model.architecture.patch_length * PATCH_SIZE:
            lines = text.split("\n")
            body = next((i for i, line in enumerate(lines) if line.startswith(("[r:", "[V:"))), None)
            if body is None or body == len(lines) - 1:
                return text, False, slides
            # A text that ends with a line end counts one line more, and a blank one, in the original.
            ended = [line + "\n" for line in lines[:-1]] + [lines[-1] or "\n"]
            if keep is None:
                keep = (len(lines) - body) // 2
            rest = "".join(ended[:body] + ended[body:][-keep:])
            flat = sum(patching.encode_generate(rest, model.architecture.patch_length), [])
            slides += 1


def architecture_of(state, dropout=0.0):
    """The sizes that the shapes of a state dict tell."""
    layers = lambda part: 1 + max(int(name.split(".h.")[1].split(".")[0]) for name in state if name.startswith(part) and ".h." in name)
    patch_length, hidden = state["patch_level_decoder.base.wpe.weight"].shape
    return Architecture(patch_length, layers("patch_level"), layers("char_level"), hidden, dropout)


def load(path, dropout=0.0, attention="sdpa"):
    """A model in float32 from a `.pth` file in the original's format."""
    state = torch.load(path, map_location="cpu", weights_only=True)["model"]
    model = NotaGen(architecture_of(state, dropout), attention)
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    return model


def versions():
    return f"torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}"


def write_atomically(path, write):
    """`write(temporary path)`, then a rename."""
    temporary = path.with_name(f".{path.name}.new")
    write(temporary)
    temporary.chmod(0o644)
    temporary.rename(path)
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")


def write_tensors(path, tensors):
    """A safetensors file; one metadata key alone, since the order of several is not fixed."""
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(contiguous, temporary, {"made with": versions()}))
