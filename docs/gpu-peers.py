"""What PyTorch does with the same work on the same GPU: cuBLAS's matrix products, and decoding a 7B LLaMA-like model step by step.

python gpu-peers.py            # needs torch with CUDA, nothing else
"""
import json
import sys
import time

import torch
import torch.nn.functional as F

LAYERS, WIDTH, MLP, HEADS, VOCABULARY = 32, 4096, 11008, 32, 32000


def seconds(work, least=0.2):
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    count = 1
    while True:
        start = time.perf_counter()
        for _ in range(count):
            work()
        torch.cuda.synchronize()
        taken = time.perf_counter() - start
        if taken >= least:
            return taken / count
        count *= 2


def products():
    for name, rows, columns in (("qkv", 3 * WIDTH, WIDTH), ("output", WIDTH, WIDTH), ("gate, up", 2 * MLP, WIDTH), ("down", WIDTH, MLP)):
        weight = torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) / 64
        for tokens in (1, 8, 16, 32, 64, 128, 256, 512, 2048):
            x = torch.randn(tokens, columns, device="cuda", dtype=torch.bfloat16)
            yield {"product": name, "tokens": tokens, "tflops": 2e-12 * rows * columns * tokens / seconds(lambda: F.linear(x, weight))}


class Decoder:
    """Weights drawn at random; keys and values lie in one block a layer, as in eager code."""

    def __init__(self, context, batch):
        def matrix(rows, columns):
            return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) / 64

        self.layers = [(matrix(3 * WIDTH, WIDTH), matrix(WIDTH, WIDTH), matrix(2 * MLP, WIDTH), matrix(WIDTH, MLP)) for _ in range(LAYERS)]
        self.table, self.head = matrix(VOCABULARY, WIDTH), matrix(VOCABULARY, WIDTH)
        self.norm = torch.ones(WIDTH, device="cuda", dtype=torch.bfloat16)
        self.cache = torch.zeros(LAYERS, 2, batch, HEADS, context, WIDTH // HEADS, device="cuda", dtype=torch.bfloat16)
        self.vectors = torch.randn(LAYERS, WIDTH, device="cuda", dtype=torch.bfloat16) / 64

    def step(self, tokens, steered):
        x = self.table[tokens]
        for i, (qkv, output, gate_up, down) in enumerate(self.layers):
            h = F.rms_norm(x, (WIDTH,), self.norm)
            q, k, v = F.linear(h, qkv).view(len(tokens), 3, HEADS, 1, WIDTH // HEADS).unbind(1)
            self.cache[i, 0, :, :, -1:], self.cache[i, 1, :, :, -1:] = k, v
            a = F.scaled_dot_product_attention(q, self.cache[i, 0], self.cache[i, 1])
            x = x + F.linear(a.reshape(len(tokens), WIDTH), output)
            gate, up = F.linear(F.rms_norm(x, (WIDTH,), self.norm), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate) * up, down)
            if steered:
                x = x - self.vectors[i]
        return F.linear(F.rms_norm(x, (WIDTH,), self.norm), self.head).argmax(-1)


def decoding():
    for batch in (1, 128):
        model = Decoder(768, batch)
        tokens = torch.zeros(batch, device="cuda", dtype=torch.long)
        for steered in (False, True):
            eager = seconds(lambda: model.step(tokens, steered), 1)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                model.step(tokens, steered)
            captured = seconds(graph.replay, 1)
            yield {"decoding": batch, "steered": steered, "eager_tokens_per_second": batch / eager, "graph_tokens_per_second": batch / captured}
        del model, graph
        torch.cuda.empty_cache()


if __name__ == "__main__":
    if not torch.cuda.is_available():
        sys.exit("torch sees no GPU")
    print(json.dumps({"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda}))
    with torch.no_grad():
        for result in (*products(), *decoding()):
            print(json.dumps(result), flush=True)
