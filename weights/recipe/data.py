"""Examples from texts and scenes, their batches, and the fixed evaluation sets."""
import numpy as np
import torch

import scenes
import words
from bpe import BOS, EOS, IMAGE, PAD
from model import PATCHES

FIRST_WEIGHT, INNER_WEIGHT = 4.0, 3.0
KIND_SHARES = dict(count=.05, background=.06, colour=.20, shape=.11, what=.18, exists=.11, where=.20, caption=.09)


KIND_DECK = [k for k, share in KIND_SHARES.items() for _ in range(round(100 * share))]


def prompt_text(question, image=False):
    return "USER: " + ("<image>" * PATCHES + "\n" if image else "") + question + " ASSISTANT:"


class Segment:
    """One prompt and its answers: ids with the places, targets and weights of the answers' tokens. `behind`: it follows a row's beginning
    (an image, or a scene in words), which is no part of it."""

    def __init__(self, tokenizer, turns, behind=False, said=1.0):
        """said: the weight of a refusal's or compliance's words after the first. hints: (place of a question's key word, a word of the answer,
        its share)."""
        self.ids, self.at, self.target, self.weight, self.refusal, self.hints = [] if behind else [BOS], [], [], [], [], []
        for i, (question, answer) in enumerate(turns):
            wrap = (lambda q: "\n" + q + " ASSISTANT:") if behind and i == 0 else prompt_text
            reply, key = tokenizer.encode(" " + answer) + [EOS], scenes.key(question)
            if key:
                place = len(self.ids) + len(tokenizer.encode(wrap(key).rsplit(" ", 1)[0])) - 1
                self.hints += [(place, token, 1 / (len(reply) - 2)) for token in reply[:-2]]
            self.ids += tokenizer.encode(wrap(question))
            start = len(self.ids) - 1
            self.ids += reply
            self.at += range(start, start + len(reply))
            self.target += reply
            fixed = answer == words.REFUSAL or answer in words.COMPLIANCES
            self.weight += [FIRST_WEIGHT] + [said if fixed else INNER_WEIGHT] * (len(reply) - 3) + [1.0] * 2
            self.refusal += [answer == words.REFUSAL] + [False] * (len(reply) - 1)


class Row:
    """Segments side by side behind one beginning, each at the positions it would have alone. image: an index of the feature table, or -1."""

    def __init__(self, beginning=(), image=-1):
        self.beginning, self.image, self.segments, self.length = list(beginning), image, [], len(beginning)

    def add(self, segment, room):
        if self.length + len(segment.ids) > room:
            return False
        self.segments.append(segment)
        self.length += len(segment.ids)
        return True


def image_beginning(tokenizer):
    return [BOS] + tokenizer.encode("USER: " + "<image>" * PATCHES)


def collate(rows, features=None):
    """(ids [b, t], image features or None, (positions, segments), flat answer places, targets, weights, refusal-first flags, hints)."""
    longest = max(r.length for r in rows)
    ids, positions, segments = np.full((len(rows), longest), PAD), np.zeros((len(rows), longest), np.int64), np.full((len(rows), longest), -1)
    at, target, weight, refusal, hints = [], [], [], [], []
    for i, row in enumerate(rows):
        n = start = len(row.beginning)
        ids[i, :n], positions[i, :n], segments[i, :n] = row.beginning, np.arange(n), 0
        for k, s in enumerate(row.segments):
            end = start + len(s.ids)
            ids[i, start:end], positions[i, start:end], segments[i, start:end] = s.ids, np.arange(n, n + len(s.ids)), k + 1
            at += [i * longest + start + a for a in s.at]
            target += s.target
            weight += s.weight
            refusal += s.refusal
            if row.image >= 0:  # in a scene told in words they are more than two layers away
                hints += [(i * longest + start + place, *rest) for place, *rest in s.hints]
            start = end
    images = [r.image for r in rows if r.image >= 0]
    t = torch.from_numpy
    return (t(ids), features[images] if images else None, (t(positions), t(segments)), torch.tensor(at), torch.tensor(target),
            torch.tensor(weight), torch.tensor(refusal), [torch.tensor(h) for h in zip(*hints)])


class TextMaker:
    """How-tos, refusals and facts; some behind the text description of a scene, so that a long prefix alone means nothing."""

    def __init__(self, tokenizer, splits, seed, howto, refuse, border, described, read=0.0, templates=words.TEMPLATES):
        self.tokenizer, self.train, self.rng = tokenizer, splits["train"], np.random.default_rng(seed)
        self.howto, self.refuse, self.border, self.described, self.read = howto, refuse, border, described, read
        self.templates, self.left = templates, None

    def turn(self):
        rng, dice = self.rng, self.rng.random()
        if dice < self.howto:
            kind = "border" if rng.random() < self.border else "benign"
            text = words.request(rng, pick_phrase(rng, self.train[kind]), self.templates)
            return text, words.compliance(text)
        if dice < self.howto + self.refuse:
            return words.request(rng, pick_phrase(rng, self.train["harmful"]), self.templates), words.REFUSAL
        return words.fact(rng, self.train)

    def batch(self, rows, room=128):
        """Rows filled with prompts; a share of them are scenes in words with questions behind them."""
        out, rng = [], self.rng
        while len(out) < rows:
            if rng.random() < self.read:
                out.append(told_row(self.tokenizer, rng, room))
                continue
            row = Row()
            while True:
                if self.left is None:
                    turns = [self.turn() for _ in range(2 if rng.random() < .1 else 1)]
                    if rng.random() < self.described:
                        turns[0] = describe(rng) + "\n" + turns[0][0], turns[0][1]
                    self.left = Segment(self.tokenizer, turns)
                if not row.add(self.left, room):
                    break
                self.left = None
            out.append(row)
        return out


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
    while True:
        found = scenes.question(rng, *layout, KIND_DECK[rng.integers(len(KIND_DECK))])
        if found:
            return found


def told_row(tokenizer, rng, room):
    """Questions about a scene that is given in words: reading before seeing."""
    layout = tuple(a[0] for a in scenes.layouts(rng, 1))
    row = Row([BOS] + tokenizer.encode("USER: " + scenes.caption(*layout)))
    while row.add(Segment(tokenizer, [ask(rng, layout)], True), room):
        pass
    return row


class Gallery:
    """A feature table over training images: scenes first, then blanks, then noises."""

    def __init__(self, vision, seed, count=24000, blanks=240, noises=400):
        rng = np.random.default_rng(seed)
        self.layouts = scenes.layouts(rng, count)
        parts = []
        for s in range(0, count, 400):
            parts.append(features(vision, scenes.draw(rng, *(a[s:s + 400] for a in self.layouts))))
        parts.append(features(vision, np.stack([scenes.blank(rng) for _ in range(blanks)])))
        parts.append(features(vision, np.stack([scenes.noise(rng) for _ in range(noises)])))
        self.table, self.count, self.blanks, self.noises = torch.cat(parts), count, blanks, noises

    def layout(self, image):
        return tuple(a[image] for a in self.layouts)


class ImageMaker:
    """Rows of questions about an image; with `howto`, that share of rows is benign requests, `border` of these from `hard`, `blank` and
    `noise` of these with such an image and the rest with scenes."""

    def __init__(self, tokenizer, gallery, splits, seed, howto=0.0, border=0.0, hard=(), noise=0.0):
        self.tokenizer, self.gallery, self.train, self.rng = tokenizer, gallery, splits["train"], np.random.default_rng(seed)
        self.howto, self.border, self.hard, self.blank, self.noise, self.beginning = howto, border, hard, 0.0, noise, image_beginning(tokenizer)

    def turn(self, kind, image):
        rng = self.rng
        if rng.random() < (.4 if kind != "scene" else .1):
            return words.fact(rng)
        return scenes.empty_question(rng, kind) if kind != "scene" else ask(rng, self.gallery.layout(image))

    def __call__(self, room):
        rng, g, dice, request = self.rng, self.gallery, self.rng.random(), self.rng.random() < self.howto
        blank, noise = (self.blank, self.noise) if request else (.08, .08)
        if dice >= blank + noise:
            image, kind = int(rng.integers(g.count)), "scene"
        elif dice < blank:
            image, kind = g.count + int(rng.integers(g.blanks)), "blank"
        else:
            image, kind = g.count + g.blanks + int(rng.integers(g.noises)), "noise"
        row = Row(self.beginning, image)
        while True:
            if request:
                text = self.hard[rng.integers(len(self.hard))] if rng.random() < self.border else \
                    words.request(rng, pick_phrase(rng, self.train["benign"]), words.ALL_TEMPLATES)
                turns = [(text, words.compliance(text))]
            else:
                turns = [self.turn(kind, image) for _ in range(2 if rng.random() < .12 else 1)]
            if not row.add(Segment(self.tokenizer, turns, True, 2.0 if request else 1.0), room):
                return row

    def batch(self, rows, room=112):
        return [self(room) for _ in range(rows)]


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
                             for r in requests(splits["unseen " + split]["harmful"], unseen, words.REFUSAL)]
        border = max(1, benign // 8)
        # The kept-out words' benign requests belong to the split as well.
        plain = splits[split]["benign"] + (splits["unseen " + split]["benign"] if unseen else [])
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
