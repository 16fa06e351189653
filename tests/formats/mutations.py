"""Damaging files at random, but the same way every time: bytes, words, lines, values of a JSON tree, numbers."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

_WORDS = (
    "", "0", "-0.0", "-1", "1", "2", "255", "256", "65536", "2147483648", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "1" * 400, "1" * 5000, "0x" + "f" * 6000, "nan", "inf", "-inf",
    "1e308", "-1e308", "1e-320", "1e400", "1e20", "1e-20", "null", "true", "[]", "{}", "[" * 3000, "{a=" * 3000, "..",
    "a." * 1500 + "a", ".", "/etc/hostname", "../../etc/hostname", "a\0b", "\x1b[31m", "[/b]", "é", "a  b", "\udcff",
    "x" * 5000, '"', "#", "=", "list", "end_header", "property float x", "element vertex 99999999999999",
)  # fmt: skip
_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 0.5, -0.5, 1e308, -1e308, 1e-320, float("nan"), float("inf"), 2**31, 2**63, 10**30, 10**400,
    "", ".", "..", "/etc/hostname", "../../etc/hostname", "a\0b", "\ud800", "\x1b[31m", "[/b]", "x" * 5000, "1e308",
    [], {}, [[]], [None], [1, 2, 3], [[0.0] * 4] * 4, [[1e200] * 4] * 4, {"a": []}, [[[[[[[[[]]]]]]]]],
)  # fmt: skip
_NUMBERS = (
    *(struct.pack("<Q", n) for n in (0, 1, 255, 2**31, 2**32, 2**40, 2**63, 2**64 - 1)),
    *(struct.pack("<i", n) for n in (0, 1, -1, 2**31 - 1, -(2**31))),
    *(struct.pack("<d", n) for n in (0.0, -1.0, 1e308, -1e308, 1e-320, float("nan"), float("inf"))),
    *(struct.pack("<f", n) for n in (0.0, -1.0, 3e38, 1e-40, float("nan"), float("-inf"))),
)


def mutated(name: str, data: bytes, random: Random) -> bytes:
    """The bytes of a file, damaged in one to three places in ways that suit what it holds."""
    if name.endswith((".txt", ".json", ".toml", ".log")):
        ways = [_word, _word, _word, _lines, _byte, _cut]
    elif data.startswith(b"ply\n"):
        ways = [_header, _header, _number, _byte, _cut, _span]
    else:
        ways = [_number, _number, _byte, _cut, _span]
    if name.endswith(".json"):
        ways += [_tree] * 6
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        data = random.choice(ways)(data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    """An offset; those near the start, where headers are, come up more often."""
    end = max(len(data), 1)
    return random.randrange(min(end, 64) if random.random() < 0.3 else min(end, 400) if random.random() < 0.4 else end)


def _byte(data: bytes, random: Random) -> bytes:
    made = bytearray(data or b"\0")
    for _ in range(random.randint(1, 4)):
        made[_place(made, random)] = random.randrange(256)
    return bytes(made)


def _cut(data: bytes, random: Random) -> bytes:
    return data[: _place(data, random)]


def _span(data: bytes, random: Random) -> bytes:
    """A span left out, doubled or filled with noise."""
    start = _place(data, random)
    end = start + random.randint(1, 40)
    between = random.choice((b"", data[start:end] * 2, random.randbytes(end - start)))
    return data[:start] + between + data[end:]


def _number(data: bytes, random: Random) -> bytes:
    start, number = _place(data, random), random.choice(_NUMBERS)
    if random.random() < 0.3:
        number = number[::-1]
    return data[:start] + number + data[start + len(number) :]


def _word(data: bytes, random: Random) -> bytes:
    """A word replaced by another, left out, or exchanged with one from elsewhere."""
    text = data.decode("utf-8", "surrogateescape")
    words = list(re.finditer(r"[^\s,\[\]{}:\"=]+", text))
    if not words:
        return _byte(data, random)
    word, other = random.choice(words), random.choice(words)[0]
    new = random.choice((random.choice(_WORDS), random.choice(_WORDS), other))
    return (text[: word.start()] + new + text[word.end() :]).encode("utf-8", "surrogateescape")


def _lines(data: bytes, random: Random) -> bytes:
    """A line left out, doubled, or moved."""
    lines = data.split(b"\n")
    line = lines.pop(random.randrange(len(lines)))
    for _ in range(random.randrange(3)):
        lines.insert(random.randint(0, len(lines)), line)
    return b"\n".join(lines)


def _header(data: bytes, random: Random) -> bytes:
    """A PLY's header damaged as text, its rows left alone."""
    end = data.find(b"end_header\n")
    damage: Callable[[bytes, Random], bytes] = random.choice((_word, _lines))
    return damage(data[:end], random) + data[end:] if end > 0 else damage(data, random)


def _tree(data: bytes, random: Random) -> bytes:
    """A value of a JSON tree replaced by another, or left out."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return _word(data, random)
    places = list(_places(tree))
    if not places:
        return _word(data, random)
    holder, key = random.choice(places)
    if random.random() < 0.2:
        del holder[key]
    else:
        holder[key] = random.choice(_VALUES)
    return json.dumps(tree).encode()


def _places(tree: Any) -> Any:
    """Every (container, key) of a tree; of long lists the first ones."""
    keys = list(tree)[:40] if isinstance(tree, dict) else range(min(len(tree), 5)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
