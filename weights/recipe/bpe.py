"""Byte-level byte pair encoding: training, encoding, decoding, and the tokenizer.json of Hugging Face's tokenizers."""
import re
from collections import Counter

SPECIALS = ("<pad>", "<s>", "</s>", "<image>")
PAD, BOS, EOS, IMAGE = range(4)
# GPT-2's pre-tokenization. The recipe's texts are ASCII, for which \w classes say the same as \p{L} and \p{N}.
SPLIT = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[^\W\d_]+| ?\d+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_letters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    for i, b in enumerate(b for b in range(256) if b not in letters):
        letters[b] = chr(256 + i)
    return letters


LETTERS = byte_letters()


class Tokenizer:
    def __init__(self, merges):
        self.merges = [tuple(m) for m in merges]
        self.ranks = {m: i for i, m in enumerate(self.merges)}
        tokens = [*SPECIALS, *(LETTERS[b] for b in range(256)), *(a + b for a, b in self.merges)]
        self.vocab = {t: i for i, t in enumerate(tokens)}
        self.tokens, self.cache, self.texts = tokens, {}, {}

    @staticmethod
    def train(texts, size):
        """Merges the most frequent pair (the smaller one in a tie) until the vocabulary has `size` tokens."""
        words = Counter(w for t in texts for w in SPLIT.findall(t))
        parts = [[[LETTERS[b] for b in w.encode()], n] for w, n in sorted(words.items())]
        merges = []
        while len(merges) < size - 256 - len(SPECIALS):
            pairs = Counter()
            for p, n in parts:
                for pair in zip(p, p[1:]):
                    pairs[pair] += n
            if not pairs:
                break
            best = min(pairs, key=lambda k: (-pairs[k], k))
            merges.append(best)
            for entry in parts:
                if best[0] in entry[0]:
                    entry[0] = _merge(entry[0], best)
        return Tokenizer(merges)

    def _word(self, word):
        if word not in self.cache:
            parts = [LETTERS[b] for b in word.encode()]
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda p: self.ranks.get(p, 1 << 30))
                if best not in self.ranks:
                    break
                parts = _merge(parts, best)
            self.cache[word] = [self.vocab[p] for p in parts]
        return self.cache[word]

    def encode(self, text):
        """Ids of a text that may hold special tokens; no <s> is added."""
        if text in self.texts:
            return self.texts[text]
        ids = []
        for piece in re.split("(<pad>|<s>|</s>|<image>)", text):
            if piece in SPECIALS:
                ids.append(SPECIALS.index(piece))
            else:
                for word in SPLIT.findall(piece):
                    ids += self._word(word)
        if len(self.texts) < 200000:
            self.texts[text] = ids
        return ids

    def decode(self, ids):
        back = {c: b for b, c in LETTERS.items()}
        return bytes(back[c] for i in ids if i >= len(SPECIALS) for c in self.tokens[i]).decode(errors="replace")

    def json(self):
        bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
        a, b = ({"Sequence": {"id": s, "type_id": 0}} for s in "AB")
        return {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [dict(id=i, content=t, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
                             for i, t in enumerate(SPECIALS)],
            "normalizer": None,
            "pre_tokenizer": dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True, use_regex=True),
            "post_processor": dict(type="TemplateProcessing", single=[bos, a], pair=[bos, a, b],
                                   special_tokens={"<s>": dict(id="<s>", ids=[BOS], tokens=["<s>"])}),
            "decoder": dict(type="ByteLevel", add_prefix_space=True, trim_offsets=True, use_regex=True),
            "model": dict(type="BPE", dropout=None, unk_token=None, continuing_subword_prefix=None, end_of_word_suffix=None,
                          fuse_unk=False, byte_fallback=False, ignore_merges=False, vocab=self.vocab,
                          merges=[list(m) for m in self.merges]),
        }


def _merge(parts, pair):
    out, i = [], 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            out.append(parts[i] + parts[i + 1])
            i += 2
        else:
            out.append(parts[i])
            i += 1
    return out
