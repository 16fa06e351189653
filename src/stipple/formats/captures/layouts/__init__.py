"""Capture layouts: a module for each program that writes them. Every module in this folder is registered."""

from __future__ import annotations

import importlib
import pkgutil

from stipple.formats.captures.layouts.base import LAYOUTS, CaptureLayout, CaptureOptions

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["LAYOUTS", "CaptureLayout", "CaptureOptions"]
