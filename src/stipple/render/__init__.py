"""Rendering by a function call: one view of a scene, or gsplat's ``rasterization`` with gradients."""

from stipple.render.gsplat import rasterization, rasterization_vjp
from stipple.render.view import Image, render_view

__all__ = ["Image", "rasterization", "rasterization_vjp", "render_view"]
