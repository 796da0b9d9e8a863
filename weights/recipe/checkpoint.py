"""The artifacts in Hugging Face's layout; safetensors written by hand. Every file is written aside and renamed."""
import json
import os
import struct

import numpy as np
import torch

from bpe import BOS, EOS, IMAGE, PAD
from model import TEXT, VISION

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'assistant' -%}{{ 'ASSISTANT: ' }}{%- elif message['role'] == 'user' -%}{{ 'USER: ' }}{%- endif -%}"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}"
    "{%- for part in message['content'] if part['type'] == 'image' -%}{{ '<image>\\n' }}{%- endfor -%}"
    "{%- for part in message['content'] if part['type'] == 'text' -%}{{ part['text'] }}{%- endfor -%}"
    "{%- endif -%}"
    "{%- if message['role'] == 'assistant' -%}{{ eos_token }}{%- else -%}{{ ' ' }}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}")


def write(path, body):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path + ".part", "wb") as f:
        f.write(body if isinstance(body, bytes) else body.encode())
    os.replace(path + ".part", path)


def write_json(path, value):
    write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_lines(path, rows):
    write(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))


def safetensors(tensors, metadata, dtype):
    """The file's bytes: u64 header length, JSON header padded to 8 with spaces, little-endian data in name order."""
    header, parts, at = {"__metadata__": metadata}, [], 0
    for name in sorted(tensors):
        t = tensors[name].detach().contiguous()
        raw = (t.to(torch.bfloat16).view(torch.int16).numpy().astype("<i2") if dtype == "BF16" else t.float().numpy().astype("<f4")).tobytes()
        header[name] = dict(dtype=dtype, shape=list(t.shape), data_offsets=[at, at + len(raw)])
        parts.append(raw)
        at += len(raw)
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(parts)


def load_safetensors(path):
    with open(path, "rb") as f:
        head = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        body = f.read()
    out = {}
    for name, h in head.items():
        if name != "__metadata__":
            raw = body[h["data_offsets"][0]:h["data_offsets"][1]]
            if h["dtype"] == "BF16":
                values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, "<f4")
            out[name] = torch.from_numpy(values.copy()).view(h["shape"])
    return out


def hub_name(name):
    if name.startswith("vision_tower."):
        rest = name[len("vision_tower."):]
        rest = rest.replace("embeddings_patch", "embeddings.patch_embedding").replace("embeddings_position", "embeddings.position_embedding")
        return "model.vision_tower.vision_model." + rest
    return "model." + name


def to_hub(model):
    """{name: tensor} with transformers 5's names; the patch matrix in its convolution's shape."""
    p = VISION["patch_size"]
    return {hub_name(n): t.reshape(-1, 3, p, p) if "embeddings_patch" in n else t for n, t in model.state_dict().items()}


def from_hub(model, tensors):
    model.load_state_dict({n: tensors[hub_name(n)].reshape(t.shape) for n, t in model.state_dict().items()})


def rounded(model):
    """The weights to the nearest bfloat16, in place: what is measured is what is shipped."""
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(torch.bfloat16).float())
    return model


def save_model(folder, model, tokenizer):
    size = len(tokenizer.tokens)
    write(f"{folder}/model.safetensors", safetensors(to_hub(model), {"format": "pt"}, "BF16"))
    write_json(f"{folder}/config.json", {
        "architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "dtype": "bfloat16",
        "image_token_index": IMAGE, "image_seq_length": (VISION["image_size"] // VISION["patch_size"]) ** 2,
        "multimodal_projector_bias": True, "projector_hidden_act": "gelu", "tie_word_embeddings": True,
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default",
        "text_config": {
            "model_type": "llama", "vocab_size": size, "max_position_embeddings": 1024, "hidden_act": "silu", "attention_bias": False,
            "attention_dropout": 0.0, "mlp_bias": False, "initializer_range": 0.02, "pretraining_tp": 1, "tie_word_embeddings": True,
            "use_cache": True, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD,
            **{k: v for k, v in TEXT.items() if k != "rope_theta"},
            "rope_parameters": {"rope_theta": TEXT["rope_theta"], "rope_type": "default"}},
        "vision_config": {"model_type": "clip_vision_model", "hidden_act": "quick_gelu", "num_channels": 3, "projection_dim": WIDTH_OF_PROJECTION,
                          "attention_dropout": 0.0, "initializer_factor": 1.0, "initializer_range": 0.02, **VISION},
        "transformers_version": "5.4.0"})
    write_json(f"{folder}/generation_config.json", {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD, "do_sample": False,
                                                    "max_new_tokens": 48, "transformers_version": "5.4.0"})
    write_json(f"{folder}/preprocessor_config.json", {
        "image_processor_type": "CLIPImageProcessor", "do_resize": True, "size": {"shortest_edge": 56}, "resample": 3, "do_center_crop": True,
        "crop_size": {"height": 56, "width": 56}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [.5] * 3, "image_std": [.25] * 3, "do_convert_rgb": True})
    write_json(f"{folder}/tokenizer.json", tokenizer.json())
    write_json(f"{folder}/tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "image_token": "<image>",
        "add_bos_token": True, "add_eos_token": False, "clean_up_tokenization_spaces": False, "model_max_length": 1024,
        "chat_template": CHAT_TEMPLATE})


WIDTH_OF_PROJECTION = 64  # CLIP's own contrastive projection, which LLaVA does not use.
