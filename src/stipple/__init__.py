"""Stipple: differentiable 3D Gaussian splatting for every machine."""

__version__ = "0.1.0"
