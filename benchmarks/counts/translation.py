"""Kernels from WGSL to SPIR-V, by naga (``tools/shaders``, which needs Node.js)."""

from __future__ import annotations

import base64
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

TRANSLATOR = Path(__file__).resolve().parents[2] / "tools" / "shaders"


def check_translator() -> None:
    """End the program with a sentence if the translator is not installed."""
    missing = "Node.js" if shutil.which("node") is None else "naga"
    if missing == "Node.js" or not (TRANSLATOR / "node_modules" / "naga-wasm").exists():
        sys.exit(f"{missing} was not found: install Node.js and run npm ci --prefix tools/shaders")


def to_spirv(sources: Sequence[str]) -> list[tuple[int, ...]]:
    """The words of each kernel. Ends the program with a sentence if a kernel cannot be translated."""
    check_translator()
    named = json.dumps({str(i): source for i, source in enumerate(sources)})
    command = ["node", "translate.mjs", "spirv"]
    done = subprocess.run(command, cwd=TRANSLATOR, input=named, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"naga failed: {done.stderr.strip()}")
    made = json.loads(done.stdout)
    for result in made.values():
        if "error" in result:
            sys.exit(f"naga refused a kernel: {result['error']}")
    return [_words(base64.b64decode(made[str(i)]["spirv"])) for i in range(len(sources))]


def _words(data: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(data) // 4}I", data)
