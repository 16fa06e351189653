"""Outputs derived from the splat ops by ordinary ops: normals as features, median depth."""

from __future__ import annotations

from stipple.ir.graph import Value
from stipple.ir.ops.elementwise import cast, maximum, sqrt, square, where
from stipple.ir.ops.reduce import matmul, reduce_min
from stipple.ir.ops.reduce import sum_ as total
from stipple.ir.ops.structure import concat, full, gather, narrow, reshape, transpose


def splat_median_depth(depths: Value, median_ids: Value) -> Value:
    """The camera z [H, W] of each pixel's median Gaussian, 0 where nothing is drawn; differentiable in ``depths`` [N].

    ``median_ids`` [H, W] is a result of ``splat_rasterize``. The median is where half of the light is absorbed (Huang
    et al., "2D Gaussian Splatting", 2024).
    """
    background = full(depths.graph, [1], 0.0, depths.dtype)
    return gather(concat([background, depths]), median_ids + 1)


def splat_normals(means: Value, quats: Value, scales: Value, viewmat: Value) -> Value:
    """Normals [N, 3] of Gaussians in camera axes, towards the camera: features for ``splat_rasterize``.

    The normal is the axis of the smallest scale (Chen et al., "NeuSG", 2023), the first of equal ones. It is
    differentiable in quats and viewmat. The image of normals is their weighted mean, not of unit length.
    """
    count = means.shape[0]
    unit = quats / maximum(sqrt(total(square(quats), 1, keepdims=True)), 1e-12)
    w, x, y, z = (narrow(unit, 1, i, 1) for i in range(4))
    axes = (
        (1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y)),
        (2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x)),
        (2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y)),
    )
    first, second, third = (concat(list(axis), axis=1) for axis in axes)
    smallest = reduce_min(scales, 1, keepdims=True)
    is_first, is_second = (narrow(scales, 1, i, 1) <= smallest for i in (0, 1))
    normals = where(is_first, first, where(is_second, second, third))
    rotation, translation = narrow(narrow(viewmat, 0, 0, 3), 1, 0, 3), narrow(narrow(viewmat, 0, 0, 3), 1, 3, 1)
    in_camera = matmul(normals, transpose(rotation))
    positions = matmul(means, transpose(rotation)) + reshape(translation, [1, 3])
    away = total(in_camera * positions, 1, keepdims=True) > 0.0
    return in_camera * reshape(1.0 - 2.0 * cast(away, means.dtype), [count, 1])
