"""Image losses: L1 and windowed SSIM, forward and backward."""

from __future__ import annotations

import numpy as np

from stipple import numerics as nx
from stipple.errors import InputError

Array = np.ndarray


def l1(image: Array, target: Array) -> Array:
    return np.asarray(np.mean(np.abs(image - target)) if image.size else 0.0)


def l1_backward(image: Array, target: Array, v_out: Array) -> tuple[Array, Array]:
    v_image = v_out * np.sign(image - target) / max(image.size, 1)
    return v_image, -v_image


def gaussian_window() -> Array:
    """The 1D window; its outer product with itself is the 2D one."""
    offsets = np.arange(nx.SSIM_WINDOW) - nx.SSIM_WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * nx.SSIM_SIGMA**2))
    result: Array = window / window.sum()
    return result


def _blur(image: Array, padding: str) -> Array:
    """The windowed mean around each pixel: zeros beyond the border (same), or inner pixels only (valid)."""
    margin = nx.SSIM_WINDOW // 2
    if padding == "same":
        image = np.pad(image, ((margin, margin), (margin, margin), (0, 0)))
    window = gaussian_window()
    rows, columns = image.shape[0] - 2 * margin, image.shape[1] - 2 * margin
    down = sum(w * image[i : i + rows] for i, w in enumerate(window))
    return np.asarray(sum(w * down[:, i : i + columns] for i, w in enumerate(window)))


def _blur_backward(v: Array, padding: str) -> Array:
    """The transpose of ``_blur``: the window is symmetric, so it is a blur too, with valid padding into the margin."""
    margin = nx.SSIM_WINDOW // 2
    if padding == "valid":
        v = np.pad(v, ((margin, margin), (margin, margin), (0, 0)))
    return _blur(v, "same")


def _check(image: Array, padding: str) -> None:
    if padding == "valid" and min(image.shape[:2]) < nx.SSIM_WINDOW:
        raise InputError(
            f"image_ssim: padding 'valid' needs an image of at least {nx.SSIM_WINDOW} x {nx.SSIM_WINDOW}, "
            f"got {image.shape[1]} x {image.shape[0]}"
        )


def ssim_map(image: Array, target: Array, padding: str) -> Array:
    """SSIM of each window and channel."""
    _check(image, padding)
    m1, m2 = _blur(image, padding), _blur(target, padding)
    s11 = _blur(image * image, padding) - m1 * m1
    s22 = _blur(target * target, padding) - m2 * m2
    s12 = _blur(image * target, padding) - m1 * m2
    top = (2 * m1 * m2 + nx.SSIM_C1) * (2 * s12 + nx.SSIM_C2)
    result: Array = top / ((m1 * m1 + m2 * m2 + nx.SSIM_C1) * (s11 + s22 + nx.SSIM_C2))
    return result


def ssim(image: Array, target: Array, padding: str = "same") -> Array:
    values = ssim_map(image, target, padding)
    return np.asarray(values.mean() if values.size else 1.0)


def ssim_backward(image: Array, target: Array, v_out: Array, padding: str) -> tuple[Array, Array]:
    """Gradients of both images. SSIM is symmetric, so one function serves both."""
    _check(image, padding)
    return _ssim_gradient(image, target, v_out, padding), _ssim_gradient(target, image, v_out, padding)


def _slopes(image: Array, other: Array, padding: str) -> Array:
    """Derivatives [3, ...] of the mean SSIM with respect to the mean, mean square and mean product of ``image`` in each
    window."""
    m1, m2 = _blur(image, padding), _blur(other, padding)
    s11 = _blur(image * image, padding) - m1 * m1
    s22 = _blur(other * other, padding) - m2 * m2
    s12 = _blur(image * other, padding) - m1 * m2
    light, structure = 2 * m1 * m2 + nx.SSIM_C1, 2 * s12 + nx.SSIM_C2
    light_norm, structure_norm = m1 * m1 + m2 * m2 + nx.SSIM_C1, s11 + s22 + nx.SSIM_C2
    value = light * structure / (light_norm * structure_norm)
    share = 1 / max(value.size, 1)
    v_s12 = share * 2 * light / (light_norm * structure_norm)
    v_s11 = -share * value / structure_norm
    v_m1 = share * (2 * m2 * structure / (light_norm * structure_norm) - 2 * m1 * value / light_norm)
    return np.stack([v_m1 - 2 * m1 * v_s11 - m2 * v_s12, v_s11, v_s12])


def _from_slopes(image: Array, other: Array, slopes: Array, padding: str) -> Array:
    """The gradient of the mean SSIM with respect to ``image``."""
    direct, squared, mixed = (_blur_backward(s, padding) for s in slopes)
    return np.asarray(direct + 2 * image * squared + other * mixed)


def _ssim_gradient(image: Array, other: Array, v_out: Array, padding: str) -> Array:
    return np.asarray(v_out * _from_slopes(image, other, _slopes(image, other, padding), padding))


def l1_ssim(image: Array, target: Array, padding: str) -> tuple[Array, Array, Array]:
    """Both losses, and the slopes of SSIM for the gradient of ``image``: zeros where no window is centred."""
    _check(image, padding)
    slopes = np.zeros((3, *image.shape))
    inner = _slopes(image, target, padding) if image.size else slopes
    margin = nx.SSIM_WINDOW // 2 if padding == "valid" else 0
    height, width = image.shape[:2]
    slopes[:, margin : height - margin, margin : width - margin] = inner
    return l1(image, target), ssim(image, target, padding), slopes


def l1_ssim_backward(
    image: Array, target: Array, slopes: Array, v_l1: Array, v_ssim: Array, padding: str
) -> tuple[Array, Array]:
    """Gradients of both images; that of ``image`` from the slopes, which are zero where no window is centred."""
    v_image, v_target = l1_backward(image, target, v_l1)
    v_image = v_image + v_ssim * _from_slopes(image, target, slopes, "same")
    return v_image, v_target + _ssim_gradient(target, image, v_ssim, padding)
