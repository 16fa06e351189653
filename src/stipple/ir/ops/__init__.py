"""Definitions and builders of the ops, one family per module. Importing this fills the registry."""

from stipple.ir.ops import elementwise, fused, image, noise, optim, reduce, splat, split, structure

__all__ = ["elementwise", "fused", "image", "noise", "optim", "reduce", "splat", "split", "structure"]
