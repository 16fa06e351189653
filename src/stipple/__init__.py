"""Stipple: differentiable 3D Gaussian splatting for every machine."""

from stipple.render import Image, rasterization, rasterization_vjp, render_view
from stipple.scene import Camera, Gaussians

__version__ = "0.1.0"

__all__ = ["Camera", "Gaussians", "Image", "__version__", "rasterization", "rasterization_vjp", "render_view"]
