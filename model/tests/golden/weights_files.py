"""Writes small checkpoints as the original's scripts do, and what PyTorch knows of them: weights_files.py FOLDER."""

import json
import os
import shutil
import sys

import torch
from checkpoints import checkpoint, network, optimizer, steps
from safetensors.torch import save_file
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, XLMRobertaConfig, XLMRobertaModel

torch.manual_seed(0)
folder = sys.argv[1]
facts = {}


def path(name):
    return os.path.join(folder, name)


def shapes(model):
    return [[name, list(parameter.shape)] for name, parameter in model.named_parameters()]


def count(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


facts["sizes"] = []
for sizes in [(32, 2, 1, 64), (16, 1, 3, 128), (48, 11, 2, 192)]:
    with torch.device("meta"):
        model = network(*sizes)
    names = list(model.state_dict())
    facts["sizes"].append({"sizes": sizes, "parameters": shapes(model), "count": count(model), "last": names[-1]})
    assert names[:-1] == [name for name, _ in model.named_parameters()]

name = "weights_notagen_toy_p_size_16_p_length_{}_p_layers_2_c_layers_1_h_size_64_lr_0.0001_batch_4.pth"
facts["file"], facts["misnamed"] = name.format(32), name.format(64)
model = network(32, 2, 1, 64)
adamw, schedule = optimizer(model)
steps(model, adamw, schedule, 3, seed=1)
saved = checkpoint(model, adamw, schedule, 7, 0.4375)
torch.save(saved, path(facts["file"]))
shutil.copy(path(facts["file"]), path(facts["misnamed"]))
facts["count"] = count(model)
facts["exp_avg_sum"] = sum(float(s["exp_avg"].double().sum()) for s in saved["optimizer"]["state"].values())

state = model.state_dict()
torch.save(state, path("bare.pth"))
torch.save({"model": state}, path("rl.pth"))
torch.save({"model": {k: v.bfloat16() for k, v in state.items()}, "min_eval_loss": torch.tensor(0.5)}, path("bf16.pth"))
wrapped = {}
for key, value in state.items():
    wrapped["module." + key] = value
    if key.endswith("attn.c_attn.weight"):
        block = "module." + key.removesuffix(".c_attn.weight")
        wrapped[block + ".bias"] = torch.ones(1, 1, 32, 32, dtype=torch.uint8).tril()
        wrapped[block + ".masked_bias"] = torch.tensor(-1e4)
torch.save({"model": wrapped, "epoch": 3}, path("wrapped.pth"))

middle = "patch_level_decoder.base.h.1.mlp.c_fc.weight"
torch.save({"model": {k: v for k, v in state.items() if k != middle}}, path("missing.pth"))
torch.save({"model": {k: v for k, v in state.items() if not k.startswith("patch_level_decoder.base.h.0.")}}, path("gap.pth"))
torch.save({"model": {**state, middle: torch.zeros(64, 255)}}, path("misshapen.pth"))
torch.save({"model": {**state, "patch_level_decoder.extra.weight": torch.zeros(1)}}, path("extra.pth"))
odd = {**state, "patch_level_decoder.patch_embedding.weight": torch.zeros(64, 2047)}
torch.save({"model": odd}, path("odd.pth"))
torch.save({"epoch": 1, "model": {}}, path("nothing.pth"))
torch.save([1, 2], path("list.pth"))
torch.save({"model": torch.nn.Linear(3, 2).state_dict()}, path("linear.pth"))

old = checkpoint(model, adamw, schedule, 7, 0.4375)
old["optimizer"] = {
    "state": {k: {**s, "step": int(s["step"])} for k, s in old["optimizer"]["state"].items()},
    "param_groups": [
        {k: g[k] for k in ("lr", "betas", "eps", "weight_decay", "amsgrad", "params")}
        for g in old["optimizer"]["param_groups"]
    ],
}
torch.save(old, path("old_optimizer.pth"))
other = network(32, 1, 1, 64)
other_adamw, other_schedule = optimizer(other)
steps(other, other_adamw, other_schedule, 1, seed=1)
torch.save({**saved, "optimizer": other_adamw.state_dict()}, path("other_optimizer.pth"))
torch.save({**saved, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1).state_dict()}, path("sgd.pth"))

alone = {k: v.clone() for k, v in state.items() if not k.endswith("lm_head.weight")}
save_file(alone, path("notagen.safetensors"), {"format": "pt", "epoch": "5", "min_eval_loss": "0.25", "note": "kept"})
embedding, output = ("char_level_decoder.base." + end for end in ("transformer.wte.weight", "lm_head.weight"))
lone = {k: v.clone() for k, v in state.items() if k != embedding}
save_file(lone, path("output_alone.safetensors"))
torch.save({"model": lone}, path("output_alone.pth"))
torch.save({"model": {**state, output: state[embedding].clone()}}, path("tied_apart.pth"))
torch.save({"model": {**state, output: state[embedding].half()}}, path("tied_coarsely.pth"))
torch.save({"model": {**state, output: state[embedding] + 1}}, path("untied.pth"))
whole = {k: v.long() for k, v in state.items()}
torch.save({"model": whole}, path("whole.pth"))
torch.save({"model": {**state, middle: state[middle].to(torch.float8_e4m3fn)}}, path("fp8.pth"))
with open(path("notagen.safetensors"), "rb") as file:
    content = file.read()
with open(path("truncated.safetensors"), "wb") as file:
    file.write(content[:-10])
with open(path("headless.safetensors"), "wb") as file:
    file.write(content[:100])


class M3(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.patch_embedding = torch.nn.Linear(64 * 128, 64)
        bert = BertConfig(
            vocab_size=1,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=1,
            intermediate_size=256,
            max_position_embeddings=12,
        )
        self.encoder.base = BertModel(bert)
        self.decoder = torch.nn.Module()
        self.decoder.base = GPT2LMHeadModel(
            GPT2Config(vocab_size=128, n_positions=64, n_embd=64, n_layer=3, n_head=1)
        )


m3 = M3()
torch.save({"model": m3.state_dict(), "epoch": 2, "best_epoch": 2, "min_eval_loss": 1.5}, path("m3.pth"))
facts["m3"] = count(m3)
lacking = {k: v for k, v in m3.state_dict().items() if k != "encoder.base.pooler.dense.bias"}
torch.save({"model": lacking}, path("m3_missing.pth"))
clamp2 = torch.nn.Module()
text = XLMRobertaConfig(
    vocab_size=50,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=10,
)
clamp2.text_model = XLMRobertaModel(text)
clamp2.text_proj = torch.nn.Linear(32, 48)
clamp2.music_model = m3.encoder
clamp2.music_proj = torch.nn.Linear(64, 48)
torch.save({"model": clamp2.state_dict(), "epoch": 4, "min_eval_loss": 0.75}, path("clamp2.pth"))
facts["clamp2"] = count(clamp2)
torch.save({"model": {k: v for k, v in clamp2.state_dict().items() if k != "music_proj.bias"}}, path("clamp2_missing.pth"))

with open(path("facts.json"), "w") as file:
    json.dump(facts, file)
