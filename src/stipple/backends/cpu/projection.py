"""Projection kernels: Gaussians to footprints, and gradients back, one Gaussian at a time in float32.

The formulas are those of the reference backend (``backends/reference/projection.py``), written out.
"""

from __future__ import annotations

import math

import numpy as np

from stipple import numerics as nx
from stipple.backends.cpu.compile import inline, kernel

f4 = np.float32
ZERO, ONE, TWO, HALF = f4(0), f4(1), f4(2), f4(0.5)
EXTENT = f4(0.5 * nx.EXTENT_SIGMA**2)
MIN_RATIO = f4(nx.MIN_COMPENSATION)
MAX_RADIUS = f4(1 << 30)

# Layout of the camera's parameters: rotation 9, translation 3, fx, fy, cx, cy, near, far, width, height, then
# the limits of x/z and y/z that the Jacobian follows.
CAMERA_LENGTH = 24
FX, FY, CX, CY, NEAR, FAR, WIDTH, HEIGHT, LOW_X, LOW_Y, HIGH_X, HIGH_Y = range(12, 24)


@inline
def rotation(w, x, y, z):
    """Rows of the rotation matrix of a unit quaternion."""
    return (
        ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y),
        TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x),
        TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y),
    )  # fmt: skip


@inline
def rotation_backward(w, x, y, z, v):
    """Gradient in a unit quaternion from the gradient in its matrix (9 values, row-major)."""
    v00, v01, v02, v10, v11, v12, v20, v21, v22 = v
    vw = TWO * (x * (v21 - v12) + y * (v02 - v20) + z * (v10 - v01))
    vx = TWO * (-TWO * x * (v11 + v22) + y * (v01 + v10) + z * (v02 + v20) + w * (v21 - v12))
    vy = TWO * (x * (v01 + v10) - TWO * y * (v00 + v22) + z * (v12 + v21) + w * (v02 - v20))
    vz = TWO * (x * (v02 + v20) + y * (v12 + v21) - TWO * z * (v00 + v11) + w * (v10 - v01))
    return vw, vx, vy, vz


@inline
def gram(p0, p1, p2, q0, q1, q2):
    """Products of two vectors, xx, xy, yy, and xx * yy - xy * xy as the square of their cross product (Lagrange's
    identity): for a needle the difference would be rounding alone."""
    c0, c1, c2 = p1 * q2 - p2 * q1, p2 * q0 - p0 * q2, p0 * q1 - p1 * q0
    return (
        p0 * p0 + p1 * p1 + p2 * p2, p0 * q0 + p1 * q1 + p2 * q2, q0 * q0 + q1 * q1 + q2 * q2,
        c0 * c0 + c1 * c1 + c2 * c2,
    )  # fmt: skip


@inline
def ewa_footprint(x, y, z, rows, s0, s1, s2, cam):
    """Projected covariance (before the low-pass): xx, xy, yy, and its determinant."""
    slope_x = min(cam[HIGH_X], max(cam[LOW_X], x / z))
    slope_y = min(cam[HIGH_Y], max(cam[LOW_Y], y / z))
    jx, jy = cam[FX] / z, cam[FY] / z
    # rows of J R
    u0 = jx * (cam[0] - slope_x * cam[6])
    u1 = jx * (cam[1] - slope_x * cam[7])
    u2 = jx * (cam[2] - slope_x * cam[8])
    w0 = jy * (cam[3] - slope_y * cam[6])
    w1 = jy * (cam[4] - slope_y * cam[7])
    w2 = jy * (cam[5] - slope_y * cam[8])
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rows
    p0 = (u0 * m00 + u1 * m10 + u2 * m20) * s0
    p1 = (u0 * m01 + u1 * m11 + u2 * m21) * s1
    p2 = (u0 * m02 + u1 * m12 + u2 * m22) * s2
    q0 = (w0 * m00 + w1 * m10 + w2 * m20) * s0
    q1 = (w0 * m01 + w1 * m11 + w2 * m21) * s1
    q2 = (w0 * m02 + w1 * m12 + w2 * m22) * s2
    return gram(p0, p1, p2, q0, q1, q2)


@inline
def camera_to_unit(rows, s0, s1, s2, cam):
    """diag(1/s) times the Gaussian's axes transposed times the camera's rotation transposed, row-major."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rows
    i0, i1, i2 = ONE / s0, ONE / s1, ONE / s2
    return (
        i0 * (m00 * cam[0] + m10 * cam[1] + m20 * cam[2]),
        i0 * (m00 * cam[3] + m10 * cam[4] + m20 * cam[5]),
        i0 * (m00 * cam[6] + m10 * cam[7] + m20 * cam[8]),
        i1 * (m01 * cam[0] + m11 * cam[1] + m21 * cam[2]),
        i1 * (m01 * cam[3] + m11 * cam[4] + m21 * cam[5]),
        i1 * (m01 * cam[6] + m11 * cam[7] + m21 * cam[8]),
        i2 * (m02 * cam[0] + m12 * cam[1] + m22 * cam[2]),
        i2 * (m02 * cam[3] + m12 * cam[4] + m22 * cam[5]),
        i2 * (m02 * cam[6] + m12 * cam[7] + m22 * cam[8]),
    )


@inline
def extents(a, b, c, p, r, k, u, v, width, height):
    """How far from the mean the region a x^2 + 2b xy + c y^2 + 2p x + 2r y <= k reaches, per axis."""
    det = a * c - b * b
    if not (a > ZERO and det > ZERO):
        return abs(u) + width + ONE, abs(v) + height + ONE
    cx, cy = (b * r - c * p) / det, (b * p - a * r) / det
    top = max(k - (p * cx + r * cy), ZERO) / det
    return abs(cx) + math.sqrt(c * top), abs(cy) + math.sqrt(a * top)


@kernel(
    "void(i8,i8,f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f4[::1],b1,b1,f4,f4,"
    "f4[:,::1],f4[:,::1],f4[::1],f4[::1],i4[:,::1])"
)
def project(
    start, end, means, quats, scales, opacities, cam, ray, antialiased, eps2d, alpha_cutoff,
    means2d, conics, seen_opacities, depths, radii,
):  # fmt: skip
    """Footprints of Gaussians start to end; culled ones get radii 0 and zeros."""
    for i in range(start, end):
        radii[i, 0] = 0
        radii[i, 1] = 0
        means2d[i, 0] = ZERO
        means2d[i, 1] = ZERO
        seen_opacities[i] = ZERO
        depths[i] = ZERO
        for k in range(conics.shape[1]):
            conics[i, k] = ZERO
        m0, m1, m2 = means[i, 0], means[i, 1], means[i, 2]
        z = cam[6] * m0 + cam[7] * m1 + cam[8] * m2 + cam[11]
        if not (cam[NEAR] <= z <= cam[FAR]):
            continue
        x = cam[0] * m0 + cam[1] * m1 + cam[2] * m2 + cam[9]
        y = cam[3] * m0 + cam[4] * m1 + cam[5] * m2 + cam[10]
        opacity = opacities[i]
        if not (ZERO < opacity < f4(np.inf)):
            continue
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        largest = max(max(abs(qw), abs(qx)), max(abs(qy), abs(qz)))
        if not (ZERO < largest < f4(np.inf)):
            continue
        qw, qx, qy, qz = qw / largest, qx / largest, qy / largest, qz / largest
        turn = ONE / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        rows = rotation(qw * turn, qx * turn, qy * turn, qz * turn)
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        u, v = cam[FX] * x / z + cam[CX], cam[FY] * y / z + cam[CY]
        if ray:
            if not (s0 > ZERO and s1 > ZERO and s2 > ZERO):
                continue
            c = ray_conic(camera_to_unit(rows, s0, s1, s2, cam), x, y, z, cam[FX], cam[FY])
            a, b, d = c[0], c[1], c[2]
        else:
            xx, xy, yy, sharp = ewa_footprint(x, y, z, rows, s0, s1, s2, cam)
            bx, by = xx + eps2d, yy + eps2d
            det = sharp + eps2d * (xx + yy + eps2d)
            if not det > ZERO:
                continue
            if antialiased:
                opacity = opacity * math.sqrt(max(sharp / det, MIN_RATIO))
            a, b, d = by / det, -xy / det, bx / det
            c = (a, b, d, ZERO, ZERO, ZERO, ZERO, ZERO)
        reach = EXTENT
        if alpha_cutoff > ZERO:
            reach = min(reach, f4(math.log(opacity / alpha_cutoff)))
        total = u + v + z + opacity
        for k in range(8):
            total += c[k]
        if not (reach >= ZERO and abs(total) < f4(np.inf)):
            continue
        k2 = TWO * reach
        rx, ry = extents(
            a - k2 * c[5],
            b - k2 * c[6],
            d - k2 * c[7],
            -k2 * c[3],
            -k2 * c[4],
            k2,
            u,
            v,
            cam[WIDTH],
            cam[HEIGHT],
        )
        rx, ry = min(f4(math.ceil(rx)), MAX_RADIUS), min(f4(math.ceil(ry)), MAX_RADIUS)
        if not (rx > ZERO and ry > ZERO):
            continue
        if u + rx <= ZERO or u - rx >= cam[WIDTH] or v + ry <= ZERO or v - ry >= cam[HEIGHT]:
            continue
        radii[i, 0] = np.int32(rx)
        radii[i, 1] = np.int32(ry)
        means2d[i, 0] = u
        means2d[i, 1] = v
        seen_opacities[i] = opacity
        depths[i] = z
        for k in range(conics.shape[1]):
            conics[i, k] = c[k]


@inline
def ray_terms(m, x, y, z, fx, fy):
    """Camera's centre in the unit frame, change of the ray per pixel in x and in y, and their moments."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    o = (-(m00 * x + m01 * y + m02 * z), -(m10 * x + m11 * y + m12 * z), -(m20 * x + m21 * y + m22 * z))
    cx = (m00 / fx, m10 / fx, m20 / fx)
    cy = (m01 / fy, m11 / fy, m21 / fy)
    return o, cx, cy, cross(o, cx), cross(o, cy)


@inline
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@inline
def dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@inline
def ray_conic(m, x, y, z, fx, fy):
    """The eight numbers of a ray footprint."""
    o, cx, cy, nx_, ny_ = ray_terms(m, x, y, z, fx, fy)
    s = z * z / dot(o, o)
    t = -s / z  # direction = -o / z
    return (
        s * dot(nx_, nx_), s * dot(nx_, ny_), s * dot(ny_, ny_), t * dot(o, cx), t * dot(o, cy),
        s * dot(cx, cx), s * dot(cx, cy), s * dot(cy, cy),
    )  # fmt: skip


# --- backward ---------------------------------------------------------------------------------------------
# Layout of a block's camera gradient: rotation 9, translation 3, fx, fy, cx, cy, the camera's position 3.
CAMERA_GRADIENT = 19


@kernel(
    "void(i8,i8,f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f4[::1],b1,b1,f4,i4[:,::1],"
    "f4[:,::1],f4[:,::1],f4[::1],f4[::1],f4[:,::1],f4[:,::1],f4[:,::1],f4[::1],f8[::1])"
)
def project_backward(
    start, end, means, quats, scales, opacities, cam, ray, antialiased, eps2d, radii,
    v_means2d, v_conics, v_opacities, v_depths, o_means, o_quats, o_scales, o_opacities, v_cam,
):  # fmt: skip
    """Gradients of Gaussians start to end; the camera's is summed into ``v_cam`` in float64, in order."""
    for i in range(start, end):
        for k in range(3):
            o_means[i, k] = ZERO
            o_scales[i, k] = ZERO
        for k in range(4):
            o_quats[i, k] = ZERO
        o_opacities[i] = ZERO
        if radii[i, 0] <= 0:
            continue
        m0, m1, m2 = means[i, 0], means[i, 1], means[i, 2]
        x = cam[0] * m0 + cam[1] * m1 + cam[2] * m2 + cam[9]
        y = cam[3] * m0 + cam[4] * m1 + cam[5] * m2 + cam[10]
        z = cam[6] * m0 + cam[7] * m1 + cam[8] * m2 + cam[11]
        qw, qx, qy, qz = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
        largest = max(max(abs(qw), abs(qx)), max(abs(qy), abs(qz)))
        sw, sx, sy, sz = qw / largest, qx / largest, qy / largest, qz / largest
        turn = ONE / math.sqrt(sw * sw + sx * sx + sy * sy + sz * sz)
        qw, qx, qy, qz = sw * turn, sx * turn, sy * turn, sz * turn
        turn = turn / largest
        rows = rotation(qw, qx, qy, qz)
        s0, s1, s2 = scales[i, 0], scales[i, 1], scales[i, 2]
        if ray:
            vx, vy, vz, v_rows, vs = ray_backward(i, x, y, z, rows, s0, s1, s2, cam, v_conics, v_cam)
            o_opacities[i] = v_opacities[i]
        else:
            vx, vy, vz, v_rows, vs, factor = ewa_backward(
                i,
                x,
                y,
                z,
                rows,
                s0,
                s1,
                s2,
                cam,
                eps2d,
                antialiased,
                v_conics,
                v_opacities[i] * opacities[i],
                v_cam,
            )
            o_opacities[i] = v_opacities[i] * factor
        # projected mean and depth
        vu, vv = v_means2d[i, 0], v_means2d[i, 1]
        px, py = cam[FX] / z * vu, cam[FY] / z * vv
        vx += px
        vy += py
        vz += v_depths[i] - (px * x + py * y) / z
        v_cam[12] += vu * x / z
        v_cam[13] += vv * y / z
        v_cam[14] += vu
        v_cam[15] += vv
        # camera-space mean to the world
        o_means[i, 0] = vx * cam[0] + vy * cam[3] + vz * cam[6]
        o_means[i, 1] = vx * cam[1] + vy * cam[4] + vz * cam[7]
        o_means[i, 2] = vx * cam[2] + vy * cam[5] + vz * cam[8]
        for r, g in enumerate((vx, vy, vz)):
            v_cam[3 * r] += g * m0
            v_cam[3 * r + 1] += g * m1
            v_cam[3 * r + 2] += g * m2
            v_cam[9 + r] += g
        vq = rotation_backward(qw, qx, qy, qz, v_rows)
        along = qw * vq[0] + qx * vq[1] + qy * vq[2] + qz * vq[3]
        o_quats[i, 0] = (vq[0] - qw * along) * turn
        o_quats[i, 1] = (vq[1] - qx * along) * turn
        o_quats[i, 2] = (vq[2] - qy * along) * turn
        o_quats[i, 3] = (vq[3] - qz * along) * turn
        for k in range(3):
            o_scales[i, k] = vs[k]


@inline
def ewa_backward(i, x, y, z, rows, s0, s1, s2, cam, eps2d, antialiased, v_conics, v_comp, v_cam):
    """Through the projected covariance: camera-space mean, axes (9), scales (3), and opacity's factor."""
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = rows
    raw_x, raw_y = x / z, y / z
    slope_x = min(cam[HIGH_X], max(cam[LOW_X], raw_x))
    slope_y = min(cam[HIGH_Y], max(cam[LOW_Y], raw_y))
    jx, jy = cam[FX] / z, cam[FY] / z
    d0, d1, d2 = cam[0] - slope_x * cam[6], cam[1] - slope_x * cam[7], cam[2] - slope_x * cam[8]
    e0, e1, e2 = cam[3] - slope_y * cam[6], cam[4] - slope_y * cam[7], cam[5] - slope_y * cam[8]
    # p = scaled rows of the Gaussian's axes seen in x, q in y
    a0 = jx * (d0 * m00 + d1 * m10 + d2 * m20)
    a1 = jx * (d0 * m01 + d1 * m11 + d2 * m21)
    a2 = jx * (d0 * m02 + d1 * m12 + d2 * m22)
    b0 = jy * (e0 * m00 + e1 * m10 + e2 * m20)
    b1 = jy * (e0 * m01 + e1 * m11 + e2 * m21)
    b2 = jy * (e0 * m02 + e1 * m12 + e2 * m22)
    p0, p1, p2, q0, q1, q2 = a0 * s0, a1 * s1, a2 * s2, b0 * s0, b1 * s1, b2 * s2
    xx, xy, yy, sharp = gram(p0, p1, p2, q0, q1, q2)
    bx, by = xx + eps2d, yy + eps2d
    inv = ONE / (sharp + eps2d * (xx + yy + eps2d))
    ca, cb, cc = by * inv, -xy * inv, bx * inv
    ga, gb, gc = v_conics[i, 0], HALF * v_conics[i, 1], v_conics[i, 2]
    # v_cov = -C G C with C the inverse covariance
    t00, t01 = ca * ga + cb * gb, ca * gb + cb * gc
    t10, t11 = cb * ga + cc * gb, cb * gb + cc * gc
    vxx = -(t00 * ca + t01 * cb)
    vxy = -(t00 * cb + t01 * cc)
    vyy = -(t10 * cb + t11 * cc)
    factor = ONE
    if antialiased:
        ratio = sharp * inv
        factor = math.sqrt(max(ratio, MIN_RATIO))
        if ratio > MIN_RATIO:
            v_ratio = v_comp / (TWO * factor)
            vxx += v_ratio * (yy * inv - ratio * ca)
            vxy += v_ratio * (-xy * inv - ratio * cb)
            vyy += v_ratio * (xx * inv - ratio * cc)
    # cov = p p^T etc.
    g_p0, g_p1, g_p2 = TWO * (vxx * p0 + vxy * q0), TWO * (vxx * p1 + vxy * q1), TWO * (vxx * p2 + vxy * q2)
    g_q0, g_q1, g_q2 = TWO * (vxy * p0 + vyy * q0), TWO * (vxy * p1 + vyy * q1), TWO * (vxy * p2 + vyy * q2)
    vs = (g_p0 * a0 + g_q0 * b0, g_p1 * a1 + g_q1 * b1, g_p2 * a2 + g_q2 * b2)
    g_p0, g_p1, g_p2, g_q0, g_q1, g_q2 = g_p0 * s0, g_p1 * s1, g_p2 * s2, g_q0 * s0, g_q1 * s1, g_q2 * s2
    u0, u1, u2, w0, w1, w2 = jx * d0, jx * d1, jx * d2, jy * e0, jy * e1, jy * e2
    v_rows = (
        g_p0 * u0 + g_q0 * w0, g_p1 * u0 + g_q1 * w0, g_p2 * u0 + g_q2 * w0,
        g_p0 * u1 + g_q0 * w1, g_p1 * u1 + g_q1 * w1, g_p2 * u1 + g_q2 * w1,
        g_p0 * u2 + g_q0 * w2, g_p1 * u2 + g_q1 * w2, g_p2 * u2 + g_q2 * w2,
    )  # fmt: skip
    # gradients in the two rows of J R
    h0, h1, h2 = (
        g_p0 * m00 + g_p1 * m01 + g_p2 * m02,
        g_p0 * m10 + g_p1 * m11 + g_p2 * m12,
        g_p0 * m20 + g_p1 * m21 + g_p2 * m22,
    )
    k0, k1, k2 = (
        g_q0 * m00 + g_q1 * m01 + g_q2 * m02,
        g_q0 * m10 + g_q1 * m11 + g_q2 * m12,
        g_q0 * m20 + g_q1 * m21 + g_q2 * m22,
    )
    v_jx = h0 * d0 + h1 * d1 + h2 * d2
    v_jy = k0 * e0 + k1 * e1 + k2 * e2
    v_slope_x = -jx * (h0 * cam[6] + h1 * cam[7] + h2 * cam[8])
    v_slope_y = -jy * (k0 * cam[6] + k1 * cam[7] + k2 * cam[8])
    v_cam[0] += jx * h0
    v_cam[1] += jx * h1
    v_cam[2] += jx * h2
    v_cam[3] += jy * k0
    v_cam[4] += jy * k1
    v_cam[5] += jy * k2
    v_cam[6] -= jx * slope_x * h0 + jy * slope_y * k0
    v_cam[7] -= jx * slope_x * h1 + jy * slope_y * k1
    v_cam[8] -= jx * slope_x * h2 + jy * slope_y * k2
    v_cam[12] += v_jx / z
    v_cam[13] += v_jy / z
    vz = -(v_jx * jx + v_jy * jy) / z
    vx, vy = ZERO, ZERO
    if raw_x == slope_x:
        vx = v_slope_x / z
        vz -= v_slope_x * raw_x / z
    else:
        v_cam[12] -= v_slope_x * slope_x / cam[FX]
        v_cam[14] -= v_slope_x / cam[FX]
    if raw_y == slope_y:
        vy = v_slope_y / z
        vz -= v_slope_y * raw_y / z
    else:
        v_cam[13] -= v_slope_y * slope_y / cam[FY]
        v_cam[15] -= v_slope_y / cam[FY]
    return vx, vy, vz, v_rows, vs, factor


@inline
def axpy(s, a, t, b):
    """s a + t b"""
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@inline
def plus(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@inline
def ray_backward(i, x, y, z, rows, s0, s1, s2, cam, g, v_cam):
    """Through the ray footprint: camera-space mean, axes (9), scales (3)."""
    m = camera_to_unit(rows, s0, s1, s2, cam)
    fx, fy = cam[FX], cam[FY]
    o, cx, cy, mx, my = ray_terms(m, x, y, z, fx, fy)
    d = (-o[0] / z, -o[1] / z, -o[2] / z)
    s = z * z / dot(o, o)
    va, vb, vc, vp, vq, ve, vf, vg = g[i, 0], g[i, 1], g[i, 2], g[i, 3], g[i, 4], g[i, 5], g[i, 6], g[i, 7]
    v_norm = (
        va * dot(mx, mx) + vb * dot(mx, my) + vc * dot(my, my) + vp * dot(d, cx) + vq * dot(d, cy)
        + ve * dot(cx, cx) + vf * dot(cx, cy) + vg * dot(cy, cy)
    )  # fmt: skip
    v_mx = axpy(TWO * s * va, mx, s * vb, my)
    v_my = axpy(s * vb, mx, TWO * s * vc, my)
    v_d = plus(axpy(s * vp, cx, s * vq, cy), axpy(-TWO * s * s * v_norm, d, ZERO, d))
    v_cx = plus(plus(axpy(s * vp, d, TWO * s * ve, cx), axpy(s * vf, cy, ZERO, cy)), cross(v_mx, o))
    v_cy = plus(plus(axpy(s * vq, d, s * vf, cx), axpy(TWO * s * vg, cy, ZERO, cy)), cross(v_my, o))
    v_o = plus(plus(cross(cx, v_mx), cross(cy, v_my)), axpy(-ONE / z, v_d, ZERO, v_d))
    vz = dot(o, v_d) / (z * z)
    v_cam[12] -= dot(cx, v_cx) / fx
    v_cam[13] -= dot(cy, v_cy) / fy
    m00, m01, m02, m10, m11, m12, m20, m21, m22 = m
    vx = -(m00 * v_o[0] + m10 * v_o[1] + m20 * v_o[2])
    vy = -(m01 * v_o[0] + m11 * v_o[1] + m21 * v_o[2])
    vz -= m02 * v_o[0] + m12 * v_o[1] + m22 * v_o[2]
    # gradient in the matrix, column by column
    g0 = axpy(-x, v_o, ONE / fx, v_cx)
    g1 = axpy(-y, v_o, ONE / fy, v_cy)
    g2 = axpy(-z, v_o, ZERO, v_o)
    a00, a01, a02, a10, a11, a12, a20, a21, a22 = rows
    i0, i1, i2 = ONE / s0, ONE / s1, ONE / s2
    # rotation: sum_i v_m[i, j] B[i, k] with B = diag(1/s) axes^T
    b0 = (a00 * i0, a01 * i1, a02 * i2)
    b1 = (a10 * i0, a11 * i1, a12 * i2)
    b2 = (a20 * i0, a21 * i1, a22 * i2)
    for j, column in enumerate((g0, g1, g2)):
        v_cam[3 * j] += dot(column, b0)
        v_cam[3 * j + 1] += dot(column, b1)
        v_cam[3 * j + 2] += dot(column, b2)
    # v_B[i, k] = sum_j v_m[i, j] R[j, k]
    t0 = plus(axpy(cam[0], g0, cam[3], g1), axpy(cam[6], g2, ZERO, g2))
    t1 = plus(axpy(cam[1], g0, cam[4], g1), axpy(cam[7], g2, ZERO, g2))
    t2 = plus(axpy(cam[2], g0, cam[5], g1), axpy(cam[8], g2, ZERO, g2))
    v_rows = (
        t0[0] * i0, t0[1] * i1, t0[2] * i2,
        t1[0] * i0, t1[1] * i1, t1[2] * i2,
        t2[0] * i0, t2[1] * i1, t2[2] * i2,
    )  # fmt: skip
    vs = (
        -(b0[0] * t0[0] + b1[0] * t1[0] + b2[0] * t2[0]) * i0,
        -(b0[1] * t0[1] + b1[1] * t1[1] + b2[1] * t2[1]) * i1,
        -(b0[2] * t0[2] + b1[2] * t1[2] + b2[2] * t2[2]) * i2,
    )
    return vx, vy, vz, v_rows, vs
