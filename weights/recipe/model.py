"""LLaVA-1.5's architecture, small: CLIP vision transformer, MLP projector, LLaMA. Modules carry Hugging Face's names."""
import math

import torch
from torch import nn
from torch.nn import functional as F

VISION = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4, image_size=56, patch_size=14,
              layer_norm_eps=1e-5)
TEXT = dict(hidden_size=192, intermediate_size=512, num_hidden_layers=4, num_attention_heads=6, num_key_value_heads=6, head_dim=32,
            rms_norm_eps=1e-6, rope_theta=10000.0)
PATCHES = (VISION["image_size"] // VISION["patch_size"]) ** 2
LAYERS, WIDTH = TEXT["num_hidden_layers"], TEXT["hidden_size"]


def initialise(module, layers):
    for name, p in module.named_parameters():
        if p.dim() > 1 or "class_embedding" in name:
            residual = name.endswith(("o_proj.weight", "down_proj.weight", "out_proj.weight", "fc2.weight"))
            nn.init.normal_(p, 0, .02 / math.sqrt(2 * layers) if residual else .02)
        elif name.endswith("bias"):
            nn.init.zeros_(p)


class VisionLayer(nn.Module):
    def __init__(self):
        super().__init__()
        d, m = VISION["hidden_size"], VISION["intermediate_size"]
        self.self_attn = nn.ModuleDict({k: nn.Linear(d, d) for k in ("q_proj", "k_proj", "v_proj", "out_proj")})
        self.mlp = nn.ModuleDict(dict(fc1=nn.Linear(d, m), fc2=nn.Linear(m, d)))
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(d, VISION["layer_norm_eps"]) for _ in range(2))

    def forward(self, x):
        b, t, d = x.shape
        heads = VISION["num_attention_heads"]
        n, a = self.layer_norm1(x), self.self_attn
        q, k, v = (a[p](n).view(b, t, heads, d // heads).transpose(1, 2) for p in ("q_proj", "k_proj", "v_proj"))
        w = torch.softmax(q @ k.transpose(2, 3) * (d // heads) ** -.5, -1)
        x = x + a["out_proj"]((w @ v).transpose(1, 2).reshape(b, t, d))
        h = self.mlp["fc1"](self.layer_norm2(x))
        return x + self.mlp["fc2"](h * torch.sigmoid(1.702 * h))


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        d, p = VISION["hidden_size"], VISION["patch_size"]
        self.embeddings = nn.ParameterDict({"class_embedding": nn.Parameter(torch.zeros(d))})
        self.embeddings_patch = nn.Linear(3 * p * p, d, bias=False)
        self.embeddings_position = nn.Embedding(PATCHES + 1, d)
        self.pre_layrnorm, self.post_layernorm = (nn.LayerNorm(d, VISION["layer_norm_eps"]) for _ in range(2))
        self.encoder = nn.ModuleDict(dict(layers=nn.ModuleList(VisionLayer() for _ in range(VISION["num_hidden_layers"]))))
        initialise(self, VISION["num_hidden_layers"])

    def forward(self, pixels, last=False):
        """pixels [n, 3, 56, 56] → patch features of layer -2 [n, 16, d]; with last also the normed CLS of the last layer."""
        n, p, side = len(pixels), VISION["patch_size"], VISION["image_size"] // VISION["patch_size"]
        patches = pixels.view(n, 3, side, p, side, p).permute(0, 2, 4, 1, 3, 5).reshape(n, side * side, -1)
        cls = self.embeddings["class_embedding"].expand(n, 1, -1)
        x = self.pre_layrnorm(torch.cat([cls, self.embeddings_patch(patches)], 1) + self.embeddings_position.weight)
        layers = self.encoder["layers"]
        for layer in layers[:-1]:
            x = layer(x)
        return (x[:, 1:], self.post_layernorm(layers[-1](x)[:, 0])) if last else x[:, 1:]


# What surrounds the matrix products costs as much as they do where autograd takes it apart into small operations: three functions with
# gradients of their own.
class Normed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True).add_(TEXT["rms_norm_eps"]))
        n = x * scale
        ctx.save_for_backward(n, scale, weight)
        return n * weight

    @staticmethod
    def backward(ctx, g):
        n, scale, weight = ctx.saved_tensors
        gn = g * n
        of_weight = gn.flatten(0, -2).sum(0)
        along = gn.mul_(weight).mean(-1, keepdim=True)
        return (g * weight).sub_(n * along).mul_(scale), of_weight


class Gated(torch.autograd.Function):
    """silu(gate) * up."""

    @staticmethod
    def forward(ctx, gate, up):
        s = torch.sigmoid(gate)
        ctx.save_for_backward(gate, up, s)
        return (gate * s).mul_(up)

    @staticmethod
    def backward(ctx, g):
        gate, up, s = ctx.saved_tensors
        of_up = (g * s).mul_(gate)
        return (1 - s).mul_(gate).add_(1).mul_(s).mul_(up).mul_(g), of_up


class Attention(torch.autograd.Function):
    """Rotary attention of q, k, v [b, t, width] under a mask [b or 1, 1, t, t] that is added."""

    @staticmethod
    def forward(ctx, q, k, v, cos, sin, mask):
        b, t, _ = q.shape
        heads, d = TEXT["num_attention_heads"], TEXT["head_dim"]
        flat = lambda x: x.view(b, t, heads, d).transpose(1, 2).reshape(b * heads, t, d)
        q, k, v = turned(q, cos, sin), turned(k, cos, sin), flat(v)
        q *= d ** -.5
        w = torch.bmm(q, k.transpose(1, 2))
        w.view(b, heads, t, t).add_(mask)
        w = torch.softmax(w, -1)
        ctx.save_for_backward(q, k, v, w, cos, sin)
        return torch.bmm(w, v).view(b, heads, t, d).transpose(1, 2).reshape(b, t, heads * d)

    @staticmethod
    def backward(ctx, g):
        q, k, v, w, cos, sin = ctx.saved_tensors
        b, t, _ = g.shape
        heads, d = TEXT["num_attention_heads"], TEXT["head_dim"]
        g = g.view(b, t, heads, d).transpose(1, 2).reshape(b * heads, t, d)
        of_v = torch.bmm(w.transpose(1, 2), g)
        of_w = torch._softmax_backward_data(torch.bmm(g, v.transpose(1, 2)), w, -1, torch.float32)
        of_q, of_k = torch.bmm(of_w, k).mul_(d ** -.5), torch.bmm(of_w.transpose(1, 2), q)
        back = lambda x: x.view(b, heads, t, d).transpose(1, 2).reshape(b, t, heads * d)
        return returned(of_q, cos, sin, b), returned(of_k, cos, sin, b), back(of_v), None, None, None


def turned(x, cos, sin):
    """[b, t, width] → rotated [b * heads, t, d]; cos and sin are [b or 1, t, d / 2]."""
    b, t, _ = x.shape
    heads, d = TEXT["num_attention_heads"], TEXT["head_dim"]
    out = torch.empty(b, heads, t, d)
    x, y, cos, sin = x.view(b, t, heads, d), out.transpose(1, 2), cos.unsqueeze(2), sin.unsqueeze(2)
    h = d // 2
    torch.mul(x[..., :h], cos, out=y[..., :h]).addcmul_(x[..., h:], sin, value=-1)
    torch.mul(x[..., h:], cos, out=y[..., h:]).addcmul_(x[..., :h], sin)
    return out.view(b * heads, t, d)


def returned(g, cos, sin, b):
    """The gradient of `turned`: the rotation back."""
    heads, t, d = TEXT["num_attention_heads"], g.shape[1], g.shape[2]
    out = torch.empty(b, t, heads, d)
    g, cos, sin = g.view(b, heads, t, d).transpose(1, 2), cos.unsqueeze(2), sin.unsqueeze(2)
    h = d // 2
    torch.mul(g[..., :h], cos, out=out[..., :h]).addcmul_(g[..., h:], sin)
    torch.mul(g[..., h:], cos, out=out[..., h:]).addcmul_(g[..., :h], sin, value=-1)
    return out.view(b, t, heads * d)


class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        return Normed.apply(x, self.weight)


class TextLayer(nn.Module):
    def __init__(self):
        super().__init__()
        m = TEXT["intermediate_size"]
        line = lambda i, o: nn.Linear(i, o, bias=False)
        self.self_attn = nn.ModuleDict({k: line(WIDTH, WIDTH) for k in ("q_proj", "k_proj", "v_proj", "o_proj")})
        self.mlp = nn.ModuleDict(dict(gate_proj=line(WIDTH, m), up_proj=line(WIDTH, m), down_proj=line(m, WIDTH)))
        self.input_layernorm, self.post_attention_layernorm = RMSNorm(), RMSNorm()

    def forward(self, x, cos, sin, mask, drop, cache=None, at=None):
        """at: the flat places whose output is wanted, as [n, d]."""
        b, t, d = x.shape
        a, n = self.self_attn, self.input_layernorm(x)
        q, k, v = (a[p](n) for p in ("q_proj", "k_proj", "v_proj"))
        if cache is None:
            found = Attention.apply(q, k, v, cos, sin, mask)
        else:
            q, k, v = (s.view(b, t, TEXT["num_attention_heads"], -1).transpose(1, 2) for s in (q, k, v))
            k, v = cache(rotate(k, cos, sin), v)
            found = (torch.softmax(rotate(q, cos, sin) @ k.transpose(2, 3) * TEXT["head_dim"] ** -.5 + mask, -1) @ v).transpose(1, 2).reshape(b, t, d)
        if at is not None:
            x, found = x.flatten(0, 1)[at], found.flatten(0, 1)[at]
        x = x + drop(a["o_proj"](found))
        m, n = self.mlp, self.post_attention_layernorm(x)
        return x + drop(m["down_proj"](Gated.apply(m["gate_proj"](n), m["up_proj"](n))))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def angles(positions):
    half = TEXT["head_dim"] // 2
    speed = TEXT["rope_theta"] ** (-torch.arange(half) / half)
    a = positions[..., None].float() * speed
    return a.cos(), a.sin()


class Llava(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.vision_tower = Vision()
        self.multi_modal_projector = nn.ModuleDict(dict(linear_1=nn.Linear(VISION["hidden_size"], WIDTH), linear_2=nn.Linear(WIDTH, WIDTH)))
        self.language_model = nn.ModuleDict(dict(embed_tokens=nn.Embedding(vocabulary, WIDTH),
                                                 layers=nn.ModuleList(TextLayer() for _ in range(LAYERS)), norm=RMSNorm()))
        initialise(self.multi_modal_projector, 1)
        initialise(self.language_model, LAYERS)
        self.alike()
        self.dropout = 0.0

    @torch.no_grad()
    def alike(self, match=.05, copy=.3):
        """Starts attention as a search: keys equal queries, so that like attends to like, and what is found is added as it is.
        How much this helps image questions has not been measured apart from the rest."""
        for layer in self.language_model["layers"]:
            a = layer.self_attn
            nn.init.normal_(a["q_proj"].weight, 0, match)
            a["k_proj"].weight.copy_(a["q_proj"].weight)
            a["o_proj"].weight.copy_(copy * a["v_proj"].weight.T)

    def project(self, features):
        p = self.multi_modal_projector
        return p["linear_2"](F.gelu(p["linear_1"](features)))

    def embed(self, ids, features=None):
        """Token embeddings; the places of image tokens take the projected features [n, 16, d] in order."""
        from bpe import IMAGE
        x = self.language_model["embed_tokens"](ids)
        if features is not None:
            x = x.index_put((ids == IMAGE,), self.project(features).flatten(0, 1))
        return x

    def forward(self, ids, features=None, edit=None, layout=None, at=None):
        """Final normed states [b, t, d] of right-padded rows, or [n, d] of the flat places `at`; edit(layer, x) may change a decoder layer's
        output. With layout (positions, segments, both [b, t]) a row holds several prompts: each sees itself and segment 0, the row's
        common beginning."""
        drop = lambda x: F.dropout(x, self.dropout, self.training) if self.dropout else x
        t = ids.shape[1]
        mask = torch.full((1, 1, t, t), -1e9).triu(1)
        positions = torch.arange(t)[None]
        if layout is not None:
            positions, segment = layout
            mask = mask.masked_fill((segment[:, None, :] != segment[:, :, None]).logical_and_(segment[:, None, :] != 0)[:, None], -1e9)
        cos, sin = angles(positions)
        x = drop(self.embed(ids, features))
        for i, layer in enumerate(self.language_model["layers"]):
            x = layer(x, cos, sin, mask, drop, at=at if i == LAYERS - 1 else None)
            if edit is not None:
                x = edit(i, x)
        return self.language_model["norm"](x)

    def logits(self, states):
        return states @ self.language_model["embed_tokens"].weight.T

    @torch.no_grad()
    def generate(self, ids, lengths, features=None, vectors=None, alpha=0.0, limit=48, stop=2):
        """Greedy answers (lists of ids without stop). h_l -= alpha * vectors[l] at each row's last prompt token, at prefill only."""
        b, t = ids.shape
        rows, text = torch.arange(b), self.language_model
        total = t + limit
        caches = [[torch.zeros(b, TEXT["num_attention_heads"], total, TEXT["head_dim"]) for _ in range(2)] for _ in text["layers"]]
        keep = lambda x: x
        x = self.embed(ids, features)
        cos, sin = angles(torch.arange(t))
        mask = torch.full((t, t), -1e9).triu(1)
        for i, layer in enumerate(text["layers"]):
            def fill(k, v):
                caches[i][0][:, :, :t], caches[i][1][:, :, :t] = k, v
                return k, v
            x = layer(x, cos, sin, mask, keep, fill)
            if vectors is not None and alpha:
                x[rows, lengths - 1] -= alpha * vectors[i]
        state = x[rows, lengths - 1]
        answers, alive, position = [[] for _ in range(b)], torch.ones(b, dtype=torch.bool), lengths.clone()
        for _ in range(limit):
            token = self.logits(text["norm"](state)).argmax(-1)
            alive &= token != stop
            for r in alive.nonzero().flatten().tolist():
                answers[r].append(int(token[r]))
            if not alive.any():
                break
            cos, sin = (c[:, None, None] for c in angles(position))
            mask = torch.where(torch.arange(total) <= position[:, None], 0.0, -1e9)[:, None, None]
            x = text["embed_tokens"](token)[:, None]
            for i, layer in enumerate(text["layers"]):
                def step(k, v):
                    caches[i][0][rows, :, position], caches[i][1][rows, :, position] = k[:, :, 0], v[:, :, 0]
                    return caches[i]
                x = layer(x, cos, sin, mask, keep, step)
            state = x[:, 0]
            position = position + 1
        return answers

    @torch.no_grad()
    def last_states(self, ids, lengths, features=None):
        """[b, layers, d]: every decoder layer's output at each row's last token."""
        found = []
        def note(_, x):
            found.append(x[torch.arange(len(x)), lengths - 1])
            return x
        self(ids, features, note)
        return torch.stack(found, 1)
