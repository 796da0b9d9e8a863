"""The images: coloured shapes in the quadrants of 56 x 56 pixels, blank images, noise; questions about them; PNG files."""
import re
import struct
import zlib

import numpy as np

SIZE, HALF = 56, 28
SHAPES = ("circle", "square", "triangle", "cross", "ring")
COLOURS = dict(red=(215, 35, 35), green=(35, 160, 55), blue=(40, 70, 220), yellow=(240, 220, 45), purple=(140, 50, 170),
               orange=(245, 140, 25), white=(250, 250, 250), black=(12, 12, 12))
BACKGROUNDS = dict(grey=(130, 130, 130), pink=(250, 185, 205), brown=(110, 72, 42), beige=(225, 210, 175), navy=(20, 25, 85),
                   mint=(170, 235, 205), teal=(10, 115, 120), lilac=(200, 180, 240), olive=(110, 115, 35), maroon=(100, 15, 40))
PLACES = ("top left", "top right", "bottom left", "bottom right")
NAMES, HUES, GROUNDS = SHAPES, tuple(COLOURS), tuple(BACKGROUNDS)
EMPTY_SHAPE, EMPTY_HUE, NOISE_GROUND, PLAIN_GROUND = len(NAMES), len(HUES), len(GROUNDS), len(GROUNDS) + 1
COUNTS = ("none", "one", "two", "three", "four")


def layouts(rng, n):
    """shape [n, 4] and hue [n, 4] per quadrant (EMPTY_* where there is none), ground [n]."""
    count = rng.integers(1, 5, n)
    present = np.argsort(rng.random((n, 4)), 1) < count[:, None]
    shape = np.where(present, rng.integers(0, len(NAMES), (n, 4)), EMPTY_SHAPE)
    hue = np.where(present, rng.integers(0, len(HUES), (n, 4)), EMPTY_HUE)
    return shape, hue, rng.integers(0, len(GROUNDS), n)


def draw(rng, shape, hue, ground):
    """uint8 [n, 56, 56, 3]: antialiased shapes with jittered place, size and colour, and a little pixel noise."""
    n = len(ground)
    y, x = np.meshgrid(np.arange(HALF) + .5, np.arange(HALF) + .5, indexing="ij")
    radius = rng.uniform(8, 11.5, (n, 4, 1, 1))
    room = HALF / 2 - radius - .5
    dx = x - HALF / 2 - rng.uniform(-1, 1, (n, 4, 1, 1)) * room
    dy = y - HALF / 2 - rng.uniform(-1, 1, (n, 4, 1, 1)) * room
    far = np.hypot(dx, dy)
    # Signed distances, negative inside.
    circle = far - radius
    square = np.maximum(abs(dx), abs(dy)) - radius * .85
    triangle = np.maximum(dy - radius * .75, abs(dx) * .88 - dy * .47 - radius * .47)
    arm = radius * .32
    cross = np.minimum(np.maximum(abs(dx) - arm, abs(dy) - radius), np.maximum(abs(dy) - arm, abs(dx) - radius))
    ring = np.maximum(far - radius, radius * .55 - far)
    kind = shape[:, :, None, None]
    distance = np.select([kind == i for i in range(5)], [circle, square, triangle, cross, ring], 99.)
    cover = np.clip(.5 - distance, 0, 1)[..., None]
    palette = np.array(list(COLOURS.values()) + [(0, 0, 0)], float)
    paint = palette[hue][:, :, None, None] + rng.normal(0, 8, (n, 4, 1, 1, 3))
    back = np.array(list(BACKGROUNDS.values()), float)[ground][:, None, None, None] + rng.normal(0, 5, (n, 1, 1, 1, 3))
    tiles = back * (1 - cover) + paint * cover
    image = tiles.reshape(n, 2, 2, HALF, HALF, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, SIZE, SIZE, 3)
    image = image + rng.normal(0, 1, image.shape) * rng.uniform(0, 7, (n, 1, 1, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def blank(rng=None):
    """White, or with a generator any plain colour (white half of the time)."""
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    if rng is not None and rng.random() < .5:
        image[:] = rng.integers(0, 256, 3)
    return image


def noise(rng, plain=False):
    """Uniform RGB noise; unless plain, now and then grey or in blocks."""
    kind = 0 if plain else rng.integers(4)
    if kind < 2:
        return rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    if kind == 2:
        return np.repeat(rng.integers(0, 256, (SIZE, SIZE, 1), np.uint8), 3, 2)
    return np.kron(rng.integers(0, 256, (SIZE // 2, SIZE // 2, 3), np.uint8), np.ones((2, 2, 1), np.uint8))


def things(shape, hue):
    """[(quadrant, 'red', 'circle')] of one layout."""
    return [(q, HUES[hue[q]], NAMES[shape[q]]) for q in range(4) if shape[q] != EMPTY_SHAPE]


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def caption(shape, hue, ground):
    parts = [f"{h} {s} {PLACES[q]}" for q, h, s in things(shape, hue)]
    return ", ".join(parts) + f", on {GROUNDS[ground]}."


QUESTIONS = ("count", "background", "colour", "shape", "what", "exists", "where", "caption")


def question(rng, shape, hue, ground, kind):
    """(question, answer) of a kind, or None where the layout has no unambiguous one. Answers are in lower case: the very tokens
    that questions and scenes in words have, so that finding a word and saying it are one thing."""
    found = things(shape, hue)
    pick = lambda items: items[rng.integers(len(items))]
    names, hues = [s for _, _, s in found], [h for _, h, _ in found]
    if kind == "count":
        return pick(("How many shapes are there?", "How many shapes do you see?", "Count the shapes.")), COUNTS[len(found)] + "."
    if kind == "background":
        return pick(("What colour is the background?", "Name the background colour.")), GROUNDS[ground] + "."
    if kind == "colour":
        single = [t for t in found if names.count(t[2]) == 1]
        if not single:
            return None
        _, h, s = pick(single)
        return pick(("What colour is the {}?", "Name the colour of the {}.")).format(s), h + "."
    if kind == "shape":
        single = [t for t in found if hues.count(t[1]) == 1]
        if not single:
            return None
        _, h, s = pick(single)
        return pick(("Which shape is {}?", "What is the {} shape?")).format(h), s + "."
    if kind == "what":
        q = int(rng.integers(4))
        there = [t for t in found if t[0] == q]
        if not there and rng.random() < .5:
            return question(rng, shape, hue, ground, kind)
        return pick(("What is at the {}?", "What do you see at the {}?")).format(PLACES[q]), \
            f"{there[0][1]} {there[0][2]}." if there else "nothing."
    if kind == "exists":
        pairs = {(h, s) for _, h, s in found}
        if rng.random() < .5:
            h, s = pick(sorted(pairs))
        else:
            _, h, s = pick(found)
            if rng.random() < .5:
                h = pick([c for c in HUES if (c, s) not in pairs])
            else:
                s = pick([c for c in NAMES if (h, c) not in pairs])
        return pick(("Is there {}?", "Do you see {}?")).format(article(f"{h} {s}")), "Yes." if (h, s) in pairs else "No."
    if kind == "where":
        by_name, by_hue = [t for t in found if names.count(t[2]) == 1], [t for t in found if hues.count(t[1]) == 1]
        way = int(rng.integers(2))
        if way == 0 and by_name:
            q, _, s = pick(by_name)
            return f"Where is the {s}?", PLACES[q] + "."
        if by_hue:
            q, h, _ = pick(by_hue)
            return f"Where is the {h} shape?", PLACES[q] + "."
        return None
    return pick(("Describe the image.", "What does the image show?")), caption(shape, hue, ground)


LOOKED_UP = re.compile("(What colour is the|Name the colour of the|Which shape is|What is the|What is at the|What do you see at the|Where is the) "
                       f"({'|'.join((*NAMES, *HUES, *PLACES))})")


def key(question):
    """A question up to the word that tells where its answer is to be found, or None."""
    found = LOOKED_UP.match(question)
    return found and found.group()


def empty_question(rng, kind):
    """About a blank or a noise image."""
    pick = lambda items: items[rng.integers(len(items))]
    return (("How many shapes are there?", "none."),
            (pick(("Describe the image.", "What does the image show?")), "Nothing, it is blank." if kind == "blank" else "Only noise."),
            (f"What is at the {pick(PLACES)}?", "nothing."),
            (f"Is there {article(pick(HUES) + ' ' + pick(NAMES))}?", "No."))[rng.integers(4)]


def png(image):
    """The bytes of an 8-bit RGB PNG (ISO/IEC 15948), filter 0 in every row."""
    chunk = lambda kind, body: struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], 1).tobytes()
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b""))
