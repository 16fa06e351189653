"""Rasterization kernels: blocks of 16 x 16 pixels, a row of pixels per vector (or few), all in L1.

A tile is one block, or several where it is larger than 16 x 16. Entries are gathered in batches into a small
buffer on the stack, with what depends on the Gaussian alone computed for many at once: the exponent in
powers of two, log2 of the opacity, and the rows that the footprint reaches. Then each Gaussian meets only
those rows.

Exponents: with x = log2(opacity) - sigma * log2(e), alpha = min(2 ** x, MAX_ALPHA), and a Gaussian counts
where x is at least its threshold.
"""

from __future__ import annotations

from operator import add as vadd
from operator import and_ as mand
from operator import ge as vge
from operator import gt as vgt
from operator import lt as vlt
from operator import mul as vmul
from operator import sub as vsub
from operator import truediv as vdiv

import numpy as np
from numba.extending import overload

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel
from stipple.backends.cpu.simd import (
    LANES,
    stack_floats,
    store_sums,
)
from stipple.backends.cpu.simd import absolute as vabs
from stipple.backends.cpu.simd import any_lane as many
from stipple.backends.cpu.simd import broadcast as vset
from stipple.backends.cpu.simd import exp2 as vexp2
from stipple.backends.cpu.simd import fma as vfma
from stipple.backends.cpu.simd import lane_numbers as viota
from stipple.backends.cpu.simd import lane_sum as vsum
from stipple.backends.cpu.simd import load as vload
from stipple.backends.cpu.simd import load_scalar as sload
from stipple.backends.cpu.simd import log2 as vlog2
from stipple.backends.cpu.simd import minimum as vmin
from stipple.backends.cpu.simd import sqrt as vsqrt
from stipple.backends.cpu.simd import store as vstore
from stipple.backends.cpu.simd import store_scalar as sstore
from stipple.backends.cpu.simd import where as vsel

ROW = 16
"""Pixels in a row of a tile: a vector, or a few."""
VECTORS = ROW // LANES
"""Vectors in a tile's row."""
f4 = np.float32
LOG2E = f4(np.log2(np.e))
TWO_LN2 = f4(2 * np.log(2))
MAX_ALPHA = f4(nx.MAX_ALPHA)
REACH = f4(0.5 * nx.EXTENT_SIGMA**2 * np.log2(np.e))
ZERO, ONE, HALF = f4(0), f4(1), f4(0.5)
PIXELS = ROW * ROW
BATCH = 64

# Fields of a batch, each BATCH floats. The ray footprint's denominator follows the features.
MEAN_X, MEAN_Y, QA, QB, QC, LOG_OPACITY, THRESHOLD, ROW_LOW, ROW_HIGH, OPACITY, RAW_A, RAW_B, RAW_C = range(
    0, 13 * BATCH, BATCH
)
RAY = 13 * BATCH
FEATURES = 18 * BATCH
RGBD = 4
"""Features of the common case, for which kernels are specialised: three channels and depth."""


# Sums per tile entry that the backward leaves for the reduction: opacity, moments of the exponent's gradient,
# magnitudes, features; for rays also the denominator's moments.
SUM_V, SUM_X, SUM_Y, SUM_XX, SUM_XY, SUM_YY, SUM_ABS_X, SUM_ABS_Y = range(8)


# Variants are chosen by the types of two tuples, so that each is compiled and cached on its own: ``ray`` has
# length 2 for rays and 1 for ewa, ``fixed`` has length RGBD for three channels and depth, 1 for any number.
_EWA, _RAY = (0,), (0, 0)
_ANY, _RGBD = (0,), (0,) * RGBD


def _signatures(result: str, arguments: str) -> list[str]:
    """Signatures of all variants of a kernel."""
    filled = arguments.format(
        prepared="i4[:,::1],i4[::1],f4[:,::1],f4[:,::1],f4[::1],f4[:,::1],f4[::1]",
        images="f4[:,:,::1],f4[:,::1],f4[:,::1],i4[:,::1]",
    )
    return [
        f"{result}(UniTuple(i8,{ray}),UniTuple(i8,{fixed}),i8,i8,{filled})" for ray in (1, 2) for fixed in (1, RGBD)
    ]


def feature_planes(fixed, planes):
    """One plane of a block's pixels per feature: on the stack where their number is fixed."""
    raise NotImplementedError("compiled code only")


@overload(feature_planes)
def _feature_planes(fixed, planes):
    if fixed.count == RGBD:
        return lambda fixed, planes: stack_floats(1024)
    return lambda fixed, planes: planes


@inline
def gather(ray, fixed, batch, start, count, ids, means2d, conics, opacities, colors, depths, log_cutoff):
    """Fill a batch with entries start to start + count and compute what is common to all pixels."""
    for j in range(count):
        g = np.intp(sload(ids, start + j))
        sstore(batch, MEAN_X + j, sload(means2d, 2 * g))
        sstore(batch, MEAN_Y + j, sload(means2d, 2 * g + 1))
        width = 8 if len(ray) == 2 else 3
        sstore(batch, RAW_A + j, sload(conics, width * g))
        sstore(batch, RAW_B + j, sload(conics, width * g + 1))
        sstore(batch, RAW_C + j, sload(conics, width * g + 2))
        sstore(batch, OPACITY + j, sload(opacities, g))
        if len(ray) == 2:
            for k in range(5):
                sstore(batch, RAY + k * BATCH + j, sload(conics, 8 * g + 3 + k))
        if len(fixed) == RGBD:
            for k in range(RGBD - 1):
                sstore(batch, FEATURES + k * BATCH + j, sload(colors, (RGBD - 1) * g + k))
            sstore(batch, FEATURES + (RGBD - 1) * BATCH + j, sload(depths, g))
    for j in range(0, count, LANES):
        a, b, c = vload(batch, RAW_A + j), vload(batch, RAW_B + j), vload(batch, RAW_C + j)
        log_opacity = vlog2(vload(batch, OPACITY + j))
        threshold = vsub(log_opacity, REACH)
        threshold = vsel(vlt(threshold, log_cutoff), vset(log_cutoff), threshold)
        vstore(batch, LOG_OPACITY + j, log_opacity)
        vstore(batch, THRESHOLD + j, threshold)
        vstore(batch, QA + j, vmul(a, -HALF * LOG2E))
        vstore(batch, QB + j, vmul(b, -LOG2E))
        vstore(batch, QC + j, vmul(c, -HALF * LOG2E))
        # a c - b^2 without cancellation (Kahan)
        bb = vmul(b, b)
        det = vadd(vfma(a, c, vsub(vset(ZERO), bb)), vfma(vsub(vset(ZERO), b), b, bb))
        valid = mand(vgt(a, ZERO), vgt(det, ZERO))
        reach = vmul(vsub(log_opacity, threshold), TWO_LN2)
        my = vload(batch, MEAN_Y + j)
        center, half = vset(ZERO), vsqrt(vdiv(vmul(a, reach), det))
        if len(ray) == 2:
            p, q = vload(batch, RAY + j), vload(batch, RAY + BATCH + j)
            a = vsub(a, vmul(reach, vload(batch, RAY + 2 * BATCH + j)))
            b = vsub(b, vmul(reach, vload(batch, RAY + 3 * BATCH + j)))
            c = vsub(c, vmul(reach, vload(batch, RAY + 4 * BATCH + j)))
            p, q = vmul(p, vsub(vset(ZERO), reach)), vmul(q, vsub(vset(ZERO), reach))
            bb = vmul(b, b)
            det = vadd(vfma(a, c, vsub(vset(ZERO), bb)), vfma(vsub(vset(ZERO), b), b, bb))
            cx = vdiv(vsub(vmul(b, q), vmul(c, p)), det)
            center = vdiv(vsub(vmul(b, p), vmul(a, q)), det)
            top = vsub(reach, vadd(vmul(p, cx), vmul(q, center)))
            half = vsqrt(vdiv(vmul(a, top), det))
            bounded = mand(vgt(a, ZERO), vgt(det, ZERO))
            bounded = mand(bounded, mand(vlt(half, f4(1e9)), vlt(vabs(center), f4(1e9))))
            half = vsel(bounded, half, f4(1e9))
            center = vsel(bounded, center, ZERO)
        margin = vmul(vadd(vabs(my), half), f4(1e-5))
        half = vadd(half, vadd(margin, f4(0.01)))
        # Only finite rows reach the loops below: what is NaN or infinite fails these comparisons.
        low, high = vsub(vadd(my, center), half), vadd(vadd(my, center), half)
        valid = mand(valid, mand(vlt(vabs(low), f4(4e9)), vlt(vabs(high), f4(4e9))))
        sizes = vadd(vabs(vload(batch, MEAN_X + j)), vadd(vload(batch, RAW_A + j), vload(batch, RAW_C + j)))
        if len(ray) == 2:
            for k in range(5):
                sizes = vadd(sizes, vabs(vload(batch, RAY + k * BATCH + j)))
        valid = mand(valid, vlt(sizes, f4(1e30)))
        opacity = vload(batch, OPACITY + j)
        valid = mand(valid, mand(vgt(opacity, ZERO), vlt(opacity, f4(1e30))))
        vstore(batch, ROW_LOW + j, vsel(valid, low, f4(1e9)))
        vstore(batch, ROW_HIGH + j, vsel(valid, high, f4(-1e9)))


@inline
def rows_of(batch, j, y0, rows):
    """First and last row (of ``rows``) of a block that a Gaussian reaches; first > last if none."""
    low, high = sload(batch, ROW_LOW + j) - y0, sload(batch, ROW_HIGH + j) - y0
    first = np.intp(min(max(low, ZERO), f4(ROW)))
    last = np.intp(min(max(high, f4(-1)), f4(rows - 1)))
    if high < ZERO:
        last = np.intp(-1)
    return first, last


@inline
def empty_block(left, top, columns, rows, background, rgba, depth, transmittance, last_ids):
    """Fill a block that no Gaussian reaches: the background."""
    channels = rgba.shape[2]
    line = stack_floats(64)
    if channels == RGBD:
        for i in range(64):
            sstore(line, i, background[i & 3] if i & 3 != 3 else ZERO)
    flat = rgba.reshape(-1)
    for r in range(rows):
        y = top + r
        if channels == RGBD and columns == ROW:
            at = (y * rgba.shape[1] + left) * RGBD
            for i in range(0, ROW * RGBD, LANES):
                vstore(flat, at + i, vload(line, i))
        else:
            for column in range(columns):
                for k in range(channels - 1):
                    rgba[y, left + column, k] = background[k]
                rgba[y, left + column, channels - 1] = ZERO
        for column in range(columns):
            depth[y, left + column] = ZERO
            transmittance[y, left + column] = ONE
            last_ids[y, left + column] = -1


@inline
def forward_block(
    ray, fixed, start, end, ids, means2d, conics, opacities, colors, depths, background,
    left, top, columns, rows, log_cutoff, threshold, most, planes, rgba, depth, transmittance, last_ids,
):  # fmt: skip
    """Composite entries start to end into the block at (left, top) of ``columns`` x ``rows`` pixels."""
    if start == end:
        empty_block(left, top, columns, rows, background, rgba, depth, transmittance, last_ids)
        return 0
    nc = RGBD if len(fixed) == RGBD else colors.shape[1] + 1
    batch = stack_floats(1408)
    light = stack_floats(768)  # T (negative once a pixel has stopped), last entry, steps
    sums = feature_planes(fixed, planes)
    for i in range(0, PIXELS, LANES):
        vstore(light, i, ONE)
        vstore(light, PIXELS + i, f4(-1))
        vstore(light, 2 * PIXELS + i, ZERO)
        for k in range(nc):
            vstore(sums, k * PIXELS + i, ZERO)
    lanes, zero = viota(), vset(ZERO)
    x0, y0 = f4(left) + HALF, f4(top) + HALF
    C = colors.reshape(-1)
    M, Q = means2d.reshape(-1), conics.reshape(-1)
    at = start
    while at < end:
        count = min(BATCH, end - at)
        gather(ray, fixed, batch, at, count, ids, M, Q, opacities, C, depths, log_cutoff)
        for j in range(count):
            first, last = rows_of(batch, j, y0, rows)
            mx, my = sload(batch, MEAN_X + j), sload(batch, MEAN_Y + j)
            qa, qb, qc = sload(batch, QA + j), sload(batch, QB + j), sload(batch, QC + j)
            log_opacity, least = sload(batch, LOG_OPACITY + j), vset(sload(batch, THRESHOLD + j))
            entry = vset(f4(at + j - start))
            if len(fixed) == RGBD:
                f0 = vset(sload(batch, FEATURES + j))
                f1 = vset(sload(batch, FEATURES + BATCH + j))
                f2 = vset(sload(batch, FEATURES + 2 * BATCH + j))
                f3 = vset(sload(batch, FEATURES + 3 * BATCH + j))
            for h in range(VECTORS):
                dx = vadd(lanes, x0 + f4(h * LANES) - mx)
                slope = vmul(dx, qb)
                if len(ray) == 2:
                    square = vmul(vmul(dx, dx), qa)
                    rp, rq = sload(batch, RAY + j), sload(batch, RAY + BATCH + j)
                    re, rf = sload(batch, RAY + 2 * BATCH + j), sload(batch, RAY + 3 * BATCH + j)
                    rg = sload(batch, RAY + 4 * BATCH + j)
                    ratio0 = vfma(dx, vfma(dx, re, vset(f4(2) * rp)), vset(ONE))
                    ratio1 = vmul(dx, f4(2) * rf)
                else:
                    square = vfma(vmul(dx, dx), qa, vset(log_opacity))
                for r in range(first, last + 1):
                    dy = y0 + f4(r) - my
                    i = r * ROW + h * LANES
                    x = vfma(slope, dy, vadd(square, qc * dy * dy))
                    if len(ray) == 2:
                        ratio = vadd(vfma(ratio1, dy, ratio0), dy * (f4(2) * rq + rg * dy))
                        x = vadd(vdiv(x, ratio), log_opacity)
                        x = vsel(vgt(ratio, ZERO), x, f4(-1e9))
                    t = vload(light, i)
                    m = mand(vge(x, least), vgt(t, ZERO))
                    if many(m):
                        alpha = vmin(vexp2(x), MAX_ALPHA)
                        weight = vmul(alpha, t)
                        after = vsub(t, weight)
                        takes = mand(m, vgt(after, threshold))
                        if most > ZERO:
                            steps = vload(light, 2 * PIXELS + i)
                            takes = mand(takes, vlt(steps, most))
                            vstore(
                                light,
                                2 * PIXELS + i,
                                vadd(
                                    steps,
                                    vsel(takes, ONE, vsel(mand(m, vgt(after, threshold)), f4(1e6), ZERO)),
                                ),
                            )
                        weight = vsel(takes, weight, zero)
                        vstore(light, i, vsel(takes, after, vsel(m, vsub(zero, t), t)))
                        vstore(light, PIXELS + i, vsel(takes, entry, vload(light, PIXELS + i)))
                        if len(fixed) == RGBD:
                            vstore(sums, i, vfma(weight, f0, vload(sums, i)))
                            vstore(sums, PIXELS + i, vfma(weight, f1, vload(sums, PIXELS + i)))
                            vstore(sums, 2 * PIXELS + i, vfma(weight, f2, vload(sums, 2 * PIXELS + i)))
                            vstore(sums, 3 * PIXELS + i, vfma(weight, f3, vload(sums, 3 * PIXELS + i)))
                        else:
                            g = np.intp(sload(ids, at + j))
                            for k in range(nc - 1):
                                value = sload(C, (nc - 1) * g + k)
                                vstore(sums, k * PIXELS + i, vfma(weight, value, vload(sums, k * PIXELS + i)))
                            k = nc - 1
                            vstore(
                                sums,
                                k * PIXELS + i,
                                vfma(weight, sload(depths, g), vload(sums, k * PIXELS + i)),
                            )
            if (at + j) & 15 == 15:
                alive = False
                for i in range(0, rows * ROW, LANES):
                    alive |= many(vgt(vload(light, i), ZERO))
                if not alive:
                    at = end
                    break
        at += BATCH
    # One loop an array, each over a row of pixels: so the compiler vectorises them.
    cut = 0
    for r in range(rows):
        y, row = top + r, r * ROW
        for column in range(columns):
            transmittance[y, left + column] = abs(sload(light, row + column))
        for column in range(columns):
            depth[y, left + column] = sload(sums, (nc - 1) * PIXELS + row + column)
        for column in range(columns):
            index = sload(light, PIXELS + row + column)
            last_ids[y, left + column] = np.int32(index) + (np.int32(start) if index >= ZERO else np.int32(0))
        if len(fixed) == RGBD:
            b0, b1, b2 = background[0], background[1], background[2]
            for column in range(columns):
                rest = abs(sload(light, row + column))
                rgba[y, left + column, 0] = sload(sums, row + column) + rest * b0
                rgba[y, left + column, 1] = sload(sums, PIXELS + row + column) + rest * b1
                rgba[y, left + column, 2] = sload(sums, 2 * PIXELS + row + column) + rest * b2
                rgba[y, left + column, 3] = ONE - rest
        else:
            for column in range(columns):
                rest = abs(sload(light, row + column))
                for k in range(nc - 1):
                    rgba[y, left + column, k] = sload(sums, k * PIXELS + row + column) + rest * background[k]
                rgba[y, left + column, nc - 1] = ONE - rest
        if most > ZERO:
            for column in range(columns):
                cut += 1 if sload(light, 2 * PIXELS + row + column) >= f4(1e6) else 0
    return cut


@kernel(*_signatures("i8", "{prepared},f4[::1],i8,f4,f4,f4,f4[::1],{images}"))
def forward(
    ray, fixed,
    first_tile, last_tile, ranges, ids, means2d, conics, opacities, colors, depths, background, size,
    log_cutoff, threshold, most, planes, rgba, depth, transmittance, last_ids,
):  # fmt: skip
    """Rasterize tiles first to last; returns the pixels that ``most`` cut short.

    ``ray`` and ``fixed`` select the variant by their length: see ``variant``.
    """
    height, width = depth.shape
    across = (width + size - 1) // size
    cut = 0
    for tile in range(first_tile, last_tile):
        top0, left0 = (tile // across) * size, (tile % across) * size
        bottom, right = min(top0 + size, height), min(left0 + size, width)
        for top in range(top0, bottom, ROW):
            for left in range(left0, right, ROW):
                cut += forward_block(
                    ray, fixed,
                    np.intp(ranges[tile, 0]), np.intp(ranges[tile, 1]), ids, means2d, conics, opacities, colors,
                    depths, background, left, top, min(ROW, right - left), min(ROW, bottom - top), log_cutoff,
                    threshold, most, planes, rgba, depth, transmittance, last_ids,
                )  # fmt: skip
    return cut


@inline
def backward_block(
    ray, fixed,
    start, end, ids, means2d, conics, opacities, colors, depths, rgba, depth, transmittance, last_ids,
    v_rgba, v_depth, left, top, columns, rows, log_cutoff, want_abs, again, planes, slots,
):  # fmt: skip
    """Sums per entry of the block at (left, top); added to what is there if ``again``."""
    if start == end:
        return
    nc = RGBD if len(fixed) == RGBD else colors.shape[1] + 1
    stride = slots.shape[1]
    batch = stack_floats(1408)
    light = stack_floats(1024)  # T, light still to come times its gradient, last entry, weights of one Gaussian
    own = stack_floats(48)
    grads = feature_planes(fixed, planes)
    for i in range(0, PIXELS, LANES):
        vstore(light, i, ONE)
        vstore(light, PIXELS + i, ZERO)
        vstore(light, 2 * PIXELS + i, f4(-1))
        for k in range(nc):
            vstore(grads, k * PIXELS + i, ZERO)
    kend = np.intp(-1)
    for r in range(rows):
        y = top + r
        for column in range(columns):
            x_ = left + column
            i = r * ROW + column
            total = v_depth[y, x_] * depth[y, x_] - v_rgba[y, x_, nc - 1] * transmittance[y, x_]
            for k in range(nc - 1):
                value = v_rgba[y, x_, k]
                total += value * rgba[y, x_, k]
                sstore(grads, k * PIXELS + i, value)
            sstore(grads, (nc - 1) * PIXELS + i, v_depth[y, x_])
            sstore(light, PIXELS + i, total)
            last = np.intp(last_ids[y, x_]) - start
            sstore(light, 2 * PIXELS + i, f4(last) if last >= 0 else f4(-1))
            kend = max(kend, last)
    stop = min(start + kend + 1, end)
    lanes, zero, one = viota(), vset(ZERO), vset(ONE)
    x0, y0 = f4(left) + HALF, f4(top) + HALF
    C = colors.reshape(-1)
    M, Q, S = means2d.reshape(-1), conics.reshape(-1), slots.reshape(-1)
    at = start
    while at < stop:
        count = min(BATCH, stop - at)
        gather(ray, fixed, batch, at, count, ids, M, Q, opacities, C, depths, log_cutoff)
        for j in range(count):
            first, last = rows_of(batch, j, y0, rows)
            mx, my = sload(batch, MEAN_X + j), sload(batch, MEAN_Y + j)
            qa, qb, qc = sload(batch, QA + j), sload(batch, QB + j), sload(batch, QC + j)
            log_opacity, least = sload(batch, LOG_OPACITY + j), vset(sload(batch, THRESHOLD + j))
            ra, rb, rc = sload(batch, RAW_A + j), sload(batch, RAW_B + j), sload(batch, RAW_C + j)
            entry = f4(at + j - start)
            g = np.intp(sload(ids, at + j))
            s_v, s_x, s_y, s_xx, s_xy, s_yy, s_ax, s_ay = zero, zero, zero, zero, zero, zero, zero, zero
            d_1, d_x, d_y, d_xx, d_xy, d_yy = zero, zero, zero, zero, zero, zero
            a0, a1, a2, a3 = zero, zero, zero, zero
            if len(fixed) == RGBD:
                f0 = vset(sload(batch, FEATURES + j))
                f1 = vset(sload(batch, FEATURES + BATCH + j))
                f2 = vset(sload(batch, FEATURES + 2 * BATCH + j))
                f3 = vset(sload(batch, FEATURES + 3 * BATCH + j))
            else:
                for i in range(0, PIXELS, LANES):
                    vstore(light, 3 * PIXELS + i, zero)
            for h in range(VECTORS):
                dx = vadd(lanes, x0 + f4(h * LANES) - mx)
                slope = vmul(dx, qb)
                if len(ray) == 2:
                    square = vmul(vmul(dx, dx), qa)
                    rp, rq = sload(batch, RAY + j), sload(batch, RAY + BATCH + j)
                    re, rf = sload(batch, RAY + 2 * BATCH + j), sload(batch, RAY + 3 * BATCH + j)
                    rg = sload(batch, RAY + 4 * BATCH + j)
                    ratio0 = vfma(dx, vfma(dx, re, vset(f4(2) * rp)), vset(ONE))
                    ratio1 = vmul(dx, f4(2) * rf)
                else:
                    square = vfma(vmul(dx, dx), qa, vset(log_opacity))
                r_p, r_py, r_pyy, r_d, r_dy, r_dyy = zero, zero, zero, zero, zero, zero
                for r in range(first, last + 1):
                    dy = y0 + f4(r) - my
                    i = r * ROW + h * LANES
                    x = vfma(slope, dy, vadd(square, qc * dy * dy))
                    if len(ray) == 2:
                        ratio = vadd(vfma(ratio1, dy, ratio0), dy * (f4(2) * rq + rg * dy))
                        inverse = vdiv(one, ratio)
                        power = vmul(x, inverse)
                        x = vadd(power, log_opacity)
                        x = vsel(vgt(ratio, ZERO), x, f4(-1e9))
                    m = mand(vge(x, least), vge(vload(light, 2 * PIXELS + i), entry))
                    if many(m):
                        raw = vexp2(x)
                        alpha = vmin(raw, MAX_ALPHA)
                        t = vload(light, i)
                        weight = vsel(m, vmul(alpha, t), zero)
                        vstore(light, i, vsub(t, weight))
                        if len(fixed) == RGBD:
                            g0, g1 = vload(grads, i), vload(grads, PIXELS + i)
                            g2, g3 = vload(grads, 2 * PIXELS + i), vload(grads, 3 * PIXELS + i)
                            mine = vfma(f0, g0, vfma(f1, g1, vfma(f2, g2, vmul(f3, g3))))
                            a0, a1 = vfma(weight, g0, a0), vfma(weight, g1, a1)
                            a2, a3 = vfma(weight, g2, a2), vfma(weight, g3, a3)
                        else:
                            mine = vmul(vload(grads, (nc - 1) * PIXELS + i), sload(depths, g))
                            for k in range(nc - 1):
                                mine = vfma(vload(grads, k * PIXELS + i), sload(C, (nc - 1) * g + k), mine)
                            vstore(light, 3 * PIXELS + i, weight)
                        behind = vsub(vload(light, PIXELS + i), vmul(weight, mine))
                        vstore(light, PIXELS + i, behind)
                        v_alpha = vsub(vmul(t, mine), vdiv(behind, vsub(one, alpha)))
                        v = vsel(mand(m, vlt(raw, MAX_ALPHA)), vmul(alpha, v_alpha), zero)
                        if len(ray) == 2:
                            s_v = vadd(s_v, v)
                            vp = vsel(m, vmul(v, inverse), zero)
                            vd = vsel(m, vmul(vp, power), zero)
                            r_p, r_py, r_pyy = vadd(r_p, vp), vfma(vp, dy, r_py), vfma(vp, dy * dy, r_pyy)
                            r_d, r_dy, r_dyy = vadd(r_d, vd), vfma(vd, dy, r_dy), vfma(vd, dy * dy, r_dyy)
                        else:
                            vp = v
                            r_p, r_py, r_pyy = vadd(r_p, v), vfma(v, dy, r_py), vfma(v, dy * dy, r_pyy)
                        if want_abs:
                            gx = vmul(vp, vfma(dx, ra, vset(rb * dy)))
                            gy = vmul(vp, vfma(dx, rb, vset(rc * dy)))
                            if len(ray) == 2:
                                # power is sigma in units of -log2(e), so vd carries that factor
                                scaled = vmul(vd, f4(2) / LOG2E)
                                gx = vfma(scaled, vfma(dx, re, vset(rp + rf * dy)), gx)
                                gy = vfma(scaled, vfma(dx, rf, vset(rq + rg * dy)), gy)
                            s_ax, s_ay = vadd(s_ax, vabs(gx)), vadd(s_ay, vabs(gy))
                if len(ray) != 2:
                    s_v = vadd(s_v, r_p)
                r_px = vmul(r_p, dx)
                s_x, s_y = vadd(s_x, r_px), vadd(s_y, r_py)
                s_xx, s_xy, s_yy = vfma(r_px, dx, s_xx), vfma(r_py, dx, s_xy), vadd(s_yy, r_pyy)
                if len(ray) == 2:
                    r_dx = vmul(r_d, dx)
                    d_1, d_x, d_y = vadd(d_1, r_d), vadd(d_x, r_dx), vadd(d_y, r_dy)
                    d_xx, d_xy, d_yy = vfma(r_dx, dx, d_xx), vfma(r_dy, dx, d_xy), vadd(d_yy, r_dyy)
            base = (at + j) * stride
            if len(fixed) == RGBD:
                store_sums(own, 0, (s_v, s_x, s_y, s_xx, s_xy, s_yy, s_ax, s_ay, a0, a1, a2, a3))
                if len(ray) == 2:
                    store_sums(own, 16, (d_1, d_x, d_y, d_xx, d_xy, d_yy))
                used = 22 if len(ray) == 2 else 12
                if again:
                    for k in range(used):
                        sstore(S, base + k, sload(S, base + k) + sload(own, k))
                else:
                    for k in range(used):
                        sstore(S, base + k, sload(own, k))
            else:
                store_sums(own, 0, (s_v, s_x, s_y, s_xx, s_xy, s_yy, s_ax, s_ay))
                if len(ray) == 2:
                    store_sums(own, 16, (d_1, d_x, d_y, d_xx, d_xy, d_yy))
                if not again:
                    for k in range(stride):
                        sstore(S, base + k, ZERO)
                for k in range(8):
                    sstore(S, base + k, sload(S, base + k) + sload(own, k))
                at_features = 8
                if len(ray) == 2:
                    at_features = 14
                    for k in range(6):
                        sstore(S, base + 8 + k, sload(S, base + 8 + k) + sload(own, 16 + k))
                for k in range(nc):
                    total_k = zero
                    for r in range(first, last + 1):
                        for h in range(VECTORS):
                            i = r * ROW + h * LANES
                            total_k = vfma(vload(light, 3 * PIXELS + i), vload(grads, k * PIXELS + i), total_k)
                    at_k = base + at_features + k
                    sstore(S, at_k, sload(S, at_k) + vsum(total_k))
        at += BATCH
    if not again:
        for e in range(stop, end):
            for k in range(stride):
                sstore(S, e * stride + k, ZERO)


@kernel(*_signatures("void", "{prepared},{images},f4[:,:,::1],f4[:,::1],i8,f4,b1,f4[::1],f4[:,::1]"))
def backward(
    ray, fixed,
    first_tile, last_tile, ranges, ids, means2d, conics, opacities, colors, depths, rgba, depth, transmittance,
    last_ids, v_rgba, v_depth, size, log_cutoff, want_abs, planes, slots,
):  # fmt: skip
    """Sums for the entries of tiles first to last, into ``slots`` [E, stride]."""
    height, width = depth.shape
    across = (width + size - 1) // size
    for tile in range(first_tile, last_tile):
        top0, left0 = (tile // across) * size, (tile % across) * size
        bottom, right = min(top0 + size, height), min(left0 + size, width)
        again = False
        for top in range(top0, bottom, ROW):
            for left in range(left0, right, ROW):
                backward_block(
                    ray, fixed,
                    np.intp(ranges[tile, 0]), np.intp(ranges[tile, 1]), ids, means2d, conics, opacities, colors,
                    depths, rgba, depth, transmittance, last_ids, v_rgba, v_depth, left, top,
                    min(ROW, right - left), min(ROW, bottom - top), log_cutoff, want_abs, again,
                        planes, slots,
                )  # fmt: skip
                again = True


def variant(projection: str, features: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The first two arguments of ``forward`` and ``backward`` for a projection and a number of features."""
    return _RAY if projection == "ray" else _EWA, _RGBD if features == RGBD else _ANY


def slot_length(projection: str, features: int) -> int:
    """Sums per tile entry that ``backward`` writes for a variant."""
    moments = 14 if projection == "ray" else 8
    if features == RGBD:
        return 24 if projection == "ray" else 12
    return -(-(moments + features) // 4) * 4  # in whole groups of the reduction
