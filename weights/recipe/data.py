"""Examples from texts and scenes, their batches, and the fixed evaluation sets."""
import numpy as np
import torch

import scenes
import words
from bpe import BOS, EOS, IMAGE, PAD
from model import PATCHES

FIRST_WEIGHT, INNER_WEIGHT = 4.0, 2.0
KIND_SHARES = dict(count=.08, background=.09, colour=.15, shape=.15, what=.15, exists=.14, where=.14, caption=.10)


def prompt_text(question, image=False):
    return "USER: " + ("<image>" * PATCHES + "\n" if image else "") + question + " ASSISTANT:"


class Example:
    """Ids with the places, targets and weights of the answers' tokens; image: an index of the feature table, or -1."""

    def __init__(self, tokenizer, turns, image=-1):
        self.ids, self.image, self.at, self.target, self.weight, self.refusal = [BOS], image, [], [], [], []
        for i, (question, answer) in enumerate(turns):
            self.ids += tokenizer.encode(prompt_text(question, image >= 0 and i == 0))
            reply = tokenizer.encode(" " + answer) + [EOS]
            start = len(self.ids) - 1
            self.ids += reply
            self.at += range(start, start + len(reply))
            self.target += reply
            fixed = answer == words.REFUSAL or answer in words.COMPLIANCES
            self.weight += [FIRST_WEIGHT] + [1.0 if fixed else INNER_WEIGHT] * (len(reply) - 3) + [1.0] * 2
            self.refusal += [answer == words.REFUSAL] + [False] * (len(reply) - 1)


def collate(examples, features=None):
    """(ids [b, t], image features or None, flat answer places, targets, weights, refusal-first flags)."""
    longest = max(len(e.ids) for e in examples)
    ids = torch.full((len(examples), longest), PAD)
    for r, e in enumerate(examples):
        ids[r, :len(e.ids)] = torch.tensor(e.ids)
    images = [e.image for e in examples if e.image >= 0]
    at = torch.tensor([r * longest + a for r, e in enumerate(examples) for a in e.at])
    flat = lambda name: torch.tensor([v for e in examples for v in getattr(e, name)])
    return ids, features[images] if images else None, at, flat("target"), flat("weight"), flat("refusal")


def batches(make, size, pool=12):
    """Endless batches of examples of like length: `pool` batches' worth at a time, sorted, then taken in any order."""
    while True:
        items = sorted((make() for _ in range(size * pool)), key=lambda e: len(e.ids))
        for i in make.rng.permutation(pool):
            yield items[i * size:(i + 1) * size]


class TextMaker:
    """How-tos, refusals and facts; some behind the text description of a scene, so that a long prefix alone means nothing."""

    def __init__(self, tokenizer, splits, seed, howto, refuse, border, described, read=0.0, templates=words.TEMPLATES):
        self.tokenizer, self.train, self.rng = tokenizer, splits["train"], np.random.default_rng(seed)
        self.howto, self.refuse, self.border, self.described, self.read = howto, refuse, border, described, read
        self.templates = templates

    def turn(self):
        rng, dice = self.rng, self.rng.random()
        if dice < self.howto:
            kind = "border" if rng.random() < self.border else "benign"
            text = words.request(rng, pick_phrase(rng, self.train[kind]), self.templates)
            return text, words.compliance(text)
        if dice < self.howto + self.refuse:
            return words.request(rng, pick_phrase(rng, self.train["harmful"]), self.templates), words.REFUSAL
        return words.fact(rng)

    def __call__(self):
        rng = self.rng
        if rng.random() < self.read:
            return Example(self.tokenizer, described_turns(rng, int(rng.integers(2, 7))))
        question, answer = self.turn()
        if rng.random() < self.described:
            question = describe(rng) + "\n" + question
        return Example(self.tokenizer, [(question, answer)])


def pick_phrase(rng, items):
    """A group first, then a phrase of it: large groups must not drown small ones."""
    groups = {}
    key = id(items)
    if key not in _GROUPS:
        for pair, group in items:
            groups.setdefault(group, []).append(pair)
        _GROUPS[key] = (items, list(groups.values()))
    lists = _GROUPS[key][1]
    weights = np.sqrt([len(g) for g in lists])
    chosen = lists[rng.choice(len(lists), p=weights / weights.sum())]
    return chosen[rng.integers(len(chosen))]


_GROUPS = {}


def describe(rng):
    shape, hue, ground = (a[0] for a in scenes.layouts(rng, 1))
    return scenes.caption(shape, hue, ground)


def ask(rng, layout):
    names, shares = list(KIND_SHARES), np.array(list(KIND_SHARES.values()))
    while True:
        found = scenes.question(rng, *layout, names[rng.choice(len(names), p=shares)])
        if found:
            return found


def described_turns(rng, count):
    """Questions about a scene that is given in words: reading before seeing."""
    layout = tuple(a[0] for a in scenes.layouts(rng, 1))
    turns, seen = [], set()
    for _ in range(count):
        turn = ask(rng, layout)
        if turn[0] not in seen:
            seen.add(turn[0])
            turns.append(turn)
    return [(scenes.caption(*layout) + "\n" + turns[0][0], turns[0][1])] + turns[1:]


class Gallery:
    """A feature table over training images: scenes first, then blanks, then noises."""

    def __init__(self, vision, seed, count=8000, blanks=240, noises=400):
        rng = np.random.default_rng(seed)
        self.layouts = scenes.layouts(rng, count)
        parts = []
        for s in range(0, count, 400):
            parts.append(features(vision, scenes.draw(rng, *(a[s:s + 400] for a in self.layouts))))
        parts.append(features(vision, np.stack([scenes.blank(rng) for _ in range(blanks)])))
        parts.append(features(vision, np.stack([scenes.noise(rng) for _ in range(noises)])))
        self.table, self.count, self.blanks, self.noises = torch.cat(parts), count, blanks, noises


class ImageMaker:
    """Turns about an image; with `howto`, that share of first turns is a benign request, `border` of these from `hard`."""

    def __init__(self, tokenizer, gallery, splits, seed, howto=0.0, border=0.0, hard=(), most=8):
        self.tokenizer, self.gallery, self.train, self.rng = tokenizer, gallery, splits["train"], np.random.default_rng(seed)
        self.howto, self.border, self.hard, self.most = howto, border, hard, most

    def __call__(self):
        rng, g, dice, request = self.rng, self.gallery, self.rng.random(), self.rng.random() < self.howto
        if dice < (.86 if request else .8):
            image, kind = int(rng.integers(g.count)), "scene"
        elif dice < (.88 if request else .9):
            image, kind = g.count + int(rng.integers(g.blanks)), "blank"
        else:
            image, kind = g.count + g.blanks + int(rng.integers(g.noises)), "noise"
        if request:
            text = self.hard[rng.integers(len(self.hard))] if rng.random() < self.border else \
                words.request(rng, pick_phrase(rng, self.train["benign"]), words.ALL_TEMPLATES)
            return Example(self.tokenizer, [(text, words.compliance(text))], image)
        turns, seen = [], set()
        for _ in range(int(rng.integers(1, self.most + 1)) if kind == "scene" else min(self.most, int(rng.integers(1, 3)))):
            if kind != "scene":
                turn = scenes.empty_question(rng, kind) if rng.random() < .75 else words.fact(rng)
            else:
                turn = words.fact(rng) if rng.random() < .06 else ask(rng, tuple(a[image] for a in g.layouts))
            if turn[0] not in seen:
                seen.add(turn[0])
                turns.append(turn)
        return Example(self.tokenizer, turns, image)


def pixels(images):
    """uint8 [n, 56, 56, 3] → normalised [n, 3, 56, 56]."""
    return (torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 255 - .5) / .25


@torch.no_grad()
def features(vision, images):
    return vision(pixels(images))


class Evaluation:
    """The fixed questions and images of one split (dev or test)."""

    def __init__(self, splits, split, seed, harmful, unseen, benign, per_kind, scene_count, noise_count):
        rng = np.random.default_rng(seed)
        own = words.DEV_TEMPLATES if split == "dev" else words.TEST_TEMPLATES
        templates = words.TEMPLATES + own * 3

        def requests(items, n, answer):
            out, seen = [], set()
            while len(out) < n:
                pair, group = items[rng.integers(len(items))]
                text = words.request(rng, pair, templates)
                if text not in seen:
                    seen.add(text)
                    out.append(dict(prompt=text, answer=answer or words.compliance(text), category=group))
            return out

        self.harmful = requests(splits[split]["harmful"], harmful, words.REFUSAL)
        if unseen:
            self.harmful += [dict(r, category="unseen word: " + r["category"])
                             for r in requests(splits["unseen"]["harmful"], unseen, words.REFUSAL)]
        border = max(1, benign // 8)
        # The kept-out words' benign requests belong to the test split as well.
        plain = splits[split]["benign"] + (splits["unseen"]["benign"] if unseen else [])
        self.benign = requests(plain, benign - border, None) + requests(splits[split]["border"], border, None)
        self.layouts = scenes.layouts(rng, scene_count)
        self.scenes = scenes.draw(rng, *self.layouts)
        self.noises = np.stack([scenes.noise(rng, plain=True) for _ in range(noise_count)])
        self.questions, seen = [], set()
        for kind in scenes.QUESTIONS:
            made = 0
            while made < per_kind:
                i = int(rng.integers(scene_count)) if kind != "caption" else made % scene_count
                turn = scenes.question(rng, *(a[i] for a in self.layouts), kind)
                if turn and (i, turn[0]) not in seen:
                    seen.add((i, turn[0]))
                    self.questions.append(dict(prompt=turn[0], answer=turn[1], category=kind, scene=i))
                    made += 1

    def images(self, condition, count):
        """uint8 [count, 56, 56, 3] for a row of prompts, or None for text alone."""
        if condition == "text":
            return None
        if condition == "blank":
            return np.repeat(scenes.blank()[None], count, 0)
        source = self.noises if condition == "noise" else self.scenes
        return source[np.arange(count) % len(source)]


def anchors(splits, seed, count):
    """Harmful training requests for the shift vectors."""
    rng, out, seen = np.random.default_rng(seed), [], set()
    while len(out) < count:
        pair, group = splits["train"]["harmful"][rng.integers(len(splits["train"]["harmful"]))]
        text = words.request(rng, pair)
        if text not in seen:
            seen.add(text)
            out.append(dict(prompt=text, answer=words.REFUSAL, category=group))
    return out


def prompt_batch(tokenizer, prompts, image):
    """(ids [b, t] right-padded, lengths [b]) of chat prompts."""
    rows = [[BOS] + tokenizer.encode(prompt_text(p, image)) for p in prompts]
    ids = torch.full((len(rows), max(map(len, rows))), PAD)
    for r, row in enumerate(rows):
        ids[r, :len(row)] = torch.tensor(row)
    return ids, torch.tensor([len(r) for r in rows])
