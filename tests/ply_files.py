"""Splat PLY files as other programs write them."""

from __future__ import annotations

import numpy as np

from stipple import Gaussians


def scene(count: int = 7, degree: int = 2) -> Gaussians:
    rng = np.random.default_rng(count)
    return Gaussians(
        rng.normal(size=(count, 3)),
        rng.normal(size=(count, 3)),
        rng.normal(size=(count, 4)),
        rng.normal(size=count),
        rng.normal(size=(count, (degree + 1) ** 2, 3)),
    )


def rewritten(original: Gaussians, form: str, kind: str, extra: bool) -> bytes:
    """The same scene as another program might write it: other order, types and properties."""
    rest = (original.sh.shape[1] - 1) * 3
    columns = {
        "opacity": original.logit_opacities,
        **{f"rot_{i}": original.quats[:, i] for i in range(4)},
        **{f"scale_{i}": original.log_scales[:, i] for i in range(3)},
        **{
            f"f_rest_{i}": original.sh[:, 1:].transpose(0, 2, 1).reshape(len(original), rest)[:, i] for i in range(rest)
        },
        **{f"f_dc_{i}": original.sh[:, 0, i] for i in range(3)},
        **{n: original.means[:, i] for i, n in enumerate("xyz")},
    }
    order = ">" if form == "binary_big_endian" else "<"
    types = dict.fromkeys(columns, (kind, "f8" if kind == "double" else "f4"))
    if extra:
        columns["label"] = np.arange(len(original))
        types["label"] = ("uchar", "u1")
    header = ["ply", f"format {form} 1.0", "comment from elsewhere", "obj_info 1"]
    if extra:
        header += ["element camera 2", "property float focal"]
    header += [f"element vertex {len(original)}", *(f"property {types[n][0]} {n}" for n in columns)]
    header += ["element face 0", "property list uchar int vertex_indices", "end_header", ""]
    body = "\n".join(header).encode()
    if form == "ascii":
        rows = [" ".join(repr(float(c[i])) for c in columns.values()) for i in range(len(original))]
        return body + ("1.5\n2.5\n" if extra else "").encode() + ("\n".join(rows) + "\n").encode()
    if extra:
        body += np.array([1.5, 2.5], order + "f4").tobytes()
    table = np.empty(len(original), [(n, order + types[n][1]) for n in columns])
    for n, c in columns.items():
        table[n] = c
    return body + table.tobytes()


def packed(degree: int, count: int) -> bytes:
    """A compressed file of noise, with colour bounds and SH."""
    rng = np.random.default_rng(count)
    edges = [f"{e}_{p}{a}" for p in ("", "scale_") for e in ("min", "max") for a in "xyz"]
    edges += [f"{e}_{a}" for e in ("min", "max") for a in "rgb"]
    words = [f"packed_{n}" for n in ("position", "rotation", "scale", "color")]
    rest = [f"f_rest_{i}" for i in range(3 * ((degree + 1) ** 2 - 1))]
    header = ["ply", "format binary_little_endian 1.0", "element chunk 1", *(f"property float {n}" for n in edges)]
    header += [f"element vertex {count}", *(f"property uint {n}" for n in words)]
    header += [f"element sh {count}", *(f"property uchar {n}" for n in rest), "end_header", ""]
    body = rng.normal(size=len(edges)).astype("<f4").tobytes() + rng.bytes(count * (16 + len(rest)))
    return "\n".join(header).encode() + body
