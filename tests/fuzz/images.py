"""Image losses and their gradients on spans, from their definition (Wang et al., 2004).

SSIM is symmetric, so the gradient in the second image is that in the first with both exchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fuzz import tensors
from fuzz.elementwise import add, div, magnitude, mul, sign, sub
from fuzz.spans import Precision, Span
from fuzz.tensors import RefusedError, Tensor

WINDOW, SIGMA = 11, 1.5
C1, C2 = 0.01**2, 0.03**2
_HALF = WINDOW // 2
_RAW = [math.exp(-((k - _HALF) ** 2) / (2 * SIGMA**2)) for k in range(WINDOW)]
WEIGHTS = [w / math.fsum(_RAW) for w in _RAW]
_ONE: Span = (1.0, 1.0, False)
_TWO: Span = (2.0, 2.0, False)

Plane = list[list[Span]]
"""One channel: rows of spans."""


def loose(how: Precision) -> Precision:
    """Formulas may be arranged in more than one way: a few units more for each operation."""
    return replace(how, basic=how.basic + 2, division=how.division + 2, sums=2 * WINDOW + 4)


def l1(a: Tensor, b: Tensor, how: Precision) -> Span:
    gaps = [magnitude(sub(x, y, how), how) for x, y in zip(a.spans, b.spans, strict=True)]
    return tensors.mean(gaps, loose(how)) if gaps else (-0.0, 0.0, False)


def l1_backward(a: Tensor, b: Tensor, v: Span, how: Precision) -> list[Tensor]:
    how = loose(how)
    count = float(max(len(a.spans), 1))
    share = div(v, (count, count, False), how)
    found = [mul(sign(sub(x, y, how), how), share, how) for x, y in zip(a.spans, b.spans, strict=True)]
    back = [(-s[1], -s[0], s[2]) if s[0] <= s[1] else s for s in found]
    return [Tensor(a.shape, a.dtype, found), Tensor(a.shape, a.dtype, back)]


# --- SSIM -------------------------------------------------------------------------------------------------
def _planes(x: Tensor) -> list[Plane]:
    height, width, channels = x.shape
    return [
        [[x.spans[(i * width + j) * channels + c] for j in range(width)] for i in range(height)]
        for c in range(channels)
    ]


def _tensor(planes: Sequence[Plane], like: Tensor) -> Tensor:
    height, width, _ = like.shape
    return Tensor(like.shape, like.dtype, [p[i][j] for i in range(height) for j in range(width) for p in planes])


def _centres(height: int, width: int, padding: str) -> list[tuple[int, int]]:
    """Where windows are centred."""
    m = _HALF if padding == "valid" else 0
    return [(i, j) for i in range(m, height - m) for j in range(m, width - m)]


def _each(a: Plane, b: Plane, f: Callable[[Span, Span], Span]) -> Plane:
    return [[f(x, y) for x, y in zip(p, q, strict=True)] for p, q in zip(a, b, strict=True)]


def _blurred(plane: Plane, centres: Sequence[tuple[int, int]], how: Precision) -> dict[tuple[int, int], Span]:
    """Weighted sums over windows, with zeros beyond the border."""
    height, width = len(plane), len(plane[0]) if plane else 0
    made = {}
    for i, j in centres:
        terms = []
        for y in range(max(0, i - _HALF), min(height, i + _HALF + 1)):
            for x in range(max(0, j - _HALF), min(width, j + _HALF + 1)):
                low, high, nan = plane[y][x]
                weight = WEIGHTS[y - i + _HALF] * WEIGHTS[x - j + _HALF]
                terms.append((low * weight, high * weight, nan))
        made[i, j] = tensors.total(terms, how, 4.0)
    return made


def _sums(a: Plane, b: Plane, centres: Sequence[tuple[int, int]], how: Precision) -> list[dict[tuple[int, int], Span]]:
    """Windowed means of a, b, a², b² and ab."""
    aa, bb = ([[mul(x, x, how) for x in row] for row in p] for p in (a, b))
    ab = _each(a, b, lambda x, y: mul(x, y, how))
    return [_blurred(p, centres, how) for p in (a, b, aa, bb, ab)]


class _Window:
    """The terms of one window's SSIM."""

    def __init__(self, m1: Span, m2: Span, e11: Span, e22: Span, e12: Span, how: Precision) -> None:
        def plus(x: Span, number: float) -> Span:
            return add(x, (number, number, False), how)

        squares = mul(m1, m1, how), mul(m2, m2, how)
        both = mul(m1, m2, how)
        self.light = plus(mul(_TWO, both, how), C1)
        self.structure = plus(mul(_TWO, sub(e12, both, how), how), C2)
        self.light_norm = plus(add(*squares, how), C1)
        spread = add(sub(e11, squares[0], how), sub(e22, squares[1], how), how)
        self.structure_norm = plus(spread, C2)
        self.norm = mul(self.light_norm, self.structure_norm, how)
        self.value = div(mul(self.light, self.structure, how), self.norm, how)

    def slopes(self, m1: Span, m2: Span, share: Span, how: Precision) -> tuple[Span, Span, Span]:
        """Derivatives of the mean over windows in m1, e11 and e12.

        value = light * structure / (light_norm * structure_norm), where light = 2 m1 m2 + C1, structure =
        2 (e12 - m1 m2) + C2, light_norm = m1² + m2² + C1, structure_norm = e11 + e22 - m1² - m2² + C2.
        """
        in_e12 = mul(share, div(mul(_TWO, self.light, how), self.norm, how), how)
        ratio = div(self.value, self.structure_norm, how)
        in_e11 = mul(share, (-ratio[1], -ratio[0], ratio[2]) if ratio[0] <= ratio[1] else ratio, how)
        gained = div(mul(mul(_TWO, m2, how), sub(self.structure, self.light, how), how), self.norm, how)
        lost = mul(
            mul(_TWO, m1, how),
            sub(div(self.value, self.structure_norm, how), div(self.value, self.light_norm, how), how),
            how,
        )
        return mul(share, add(gained, lost, how), how), in_e11, in_e12


def _check(x: Tensor, padding: str) -> None:
    if padding == "valid" and min(x.shape[:2]) < WINDOW:
        raise RefusedError("image_ssim: smaller than a window")


def ssim(a: Tensor, b: Tensor, padding: str, how: Precision) -> Span:
    _check(a, padding)
    how = loose(how)
    centres = _centres(*a.shape[:2], padding)
    values = []
    for p, q in zip(_planes(a), _planes(b), strict=True):
        sums = _sums(p, q, centres, how)
        values += [_Window(*(s[at] for s in sums), how).value for at in centres]
    return tensors.mean(values, replace(how, sums=64)) if values else _ONE


def slopes(a: Tensor, b: Tensor, padding: str, how: Precision) -> list[list[Plane]]:
    """For each channel, three planes: the mean SSIM's derivatives in each window's m1, e11, e12; 0 where there is no
    window."""
    how = loose(how)
    height, width, channels = a.shape
    centres = _centres(height, width, padding)
    share = div(_ONE, (float(max(1, len(centres) * channels)),) * 2 + (False,), how)
    made = []
    for p, q in zip(_planes(a), _planes(b), strict=True):
        sums = _sums(p, q, centres, how)
        zero: Span = (-0.0, 0.0, False)
        planes: list[Plane] = [[[zero] * width for _ in range(height)] for _ in range(3)]
        for i, j in centres:
            window = _Window(*(s[i, j] for s in sums), how)
            for plane, slope in zip(planes, window.slopes(sums[0][i, j], sums[1][i, j], share, how), strict=True):
                plane[i][j] = slope
        made.append(planes)
    return made


def from_slopes(a: Tensor, b: Tensor, found: Sequence[Sequence[Plane]], v: Span, how: Precision) -> Tensor:
    """v times the gradient in ``a``: m1, e11 and e12 are weighted sums of a, a² and ab."""
    how = loose(how)
    everywhere = _centres(*a.shape[:2], "same")
    made = []
    for p, q, planes in zip(_planes(a), _planes(b), found, strict=True):
        direct, squared, mixed = (_blurred(s, everywhere, how) for s in planes)

        def at(i: int, j: int, p: Plane = p, q: Plane = q, d: Any = direct, s: Any = squared, m: Any = mixed) -> Span:
            through_square = mul(mul(_TWO, p[i][j], how), s[i, j], how)
            return mul(v, add(add(d[i, j], through_square, how), mul(q[i][j], m[i, j], how), how), how)

        made.append([[at(i, j) for j in range(a.shape[1])] for i in range(a.shape[0])])
    return _tensor(made, a)


def ssim_backward(a: Tensor, b: Tensor, v: Span, padding: str, how: Precision) -> list[Tensor]:
    _check(a, padding)
    return [from_slopes(x, y, slopes(x, y, padding, how), v, how) for x, y in ((a, b), (b, a))]


def _added(a: Tensor, b: Tensor, how: Precision) -> Tensor:
    return Tensor(a.shape, a.dtype, [add(x, y, loose(how)) for x, y in zip(a.spans, b.spans, strict=True)])


def compute(op: str, x: Sequence[Tensor], attrs: Mapping[str, Any], how: Precision) -> list[Tensor]:
    """Results of an image op."""
    a, b = x[:2]
    padding = attrs.get("padding", "same")

    def scalar(span: Span) -> Tensor:
        return Tensor((), a.dtype, [span])

    if op == "image_l1":
        return [scalar(l1(a, b, how))]
    if op == "image_l1_backward":
        return l1_backward(a, b, x[2].spans[0], how)
    if op == "image_ssim":
        return [scalar(ssim(a, b, padding, how))]
    if op == "image_ssim_backward":
        return ssim_backward(a, b, x[2].spans[0], padding, how)
    if op == "image_l1_ssim":
        mean = ssim(a, b, padding, how)
        planes = slopes(a, b, padding, how)
        parts = [_tensor([channel[k] for channel in planes], a).spans for k in range(3)]
        kept = Tensor((3, *a.shape), a.dtype, [s for part in parts for s in part])
        return [scalar(l1(a, b, how)), scalar(mean), kept]
    assert op == "image_l1_ssim_backward", op
    _check(a, padding)
    size = len(a.spans)
    thirds = [_planes(Tensor(a.shape, a.dtype, x[2].spans[k * size : (k + 1) * size])) for k in range(3)]
    given = [list(planes) for planes in zip(*thirds, strict=True)]
    v_l1, v_ssim = x[3].spans[0], x[4].spans[0]
    from_l1 = l1_backward(a, b, v_l1, how)
    first = from_slopes(a, b, given, v_ssim, how)
    second = from_slopes(b, a, slopes(b, a, padding, how), v_ssim, how)
    return [_added(p, q, how) for p, q in zip(from_l1, (first, second), strict=True)]


OPS = frozenset(f"image_{n}{b}" for n in ("l1", "ssim", "l1_ssim") for b in ("", "_backward"))
