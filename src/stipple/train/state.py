"""The state of training: the Gaussians' parameters, Adam's moments and statistics, always edited together."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from stipple.scene.gaussians import Gaussians

Array = np.ndarray
PARAMS = ("means", "log_scales", "quats", "logit_opacities", "sh")
MOMENTS = tuple(f"{kind}_{name}" for name in PARAMS for kind in ("m", "v"))
EDITED = ("means", "log_scales", "quats", "logit_opacities")
"""What strategies read and set, besides their statistics. The rest, most of the memory, they only rearrange."""


def row_shapes(coefficients: int) -> dict[str, list[int]]:
    """The shape of a Gaussian's row in each parameter."""
    return {"means": [3], "log_scales": [3], "quats": [4], "logit_opacities": [], "sh": [coefficients, 3]}


class TrainingState:
    """Arrays by name, each with one row per Gaussian. All others than parameters and moments are statistics.

    Every change goes through :meth:`rearrange`, :meth:`replace` and :meth:`reset_moments`, so that parameters,
    moments and statistics stay consistent.

    Parameters and moments other than those in EDITED may be missing: they stay on a device, which then repeats there
    what is recorded here: row i becomes what row ``origin[i]`` was, and the moments of the parameter ``name`` become
    zero where ``reset[name][i]``. ``finite_elsewhere`` says which rows are finite there.
    """

    def __init__(self, arrays: Mapping[str, Array], finite_elsewhere: Array | None = None) -> None:
        self.arrays = dict(arrays)
        self._finite_elsewhere = finite_elsewhere
        self.origin = np.arange(self.count)
        self.reset = {name: np.zeros(self.count, bool) for name in PARAMS}

    @classmethod
    def start(cls, scene: Gaussians, statistics: Mapping[str, tuple[int, ...]]) -> TrainingState:
        """From a scene, with moments and statistics zero; ``statistics`` are the shapes of their rows by name."""
        params = {name: getattr(scene, name) for name in PARAMS}
        moments = {f"{kind}_{name}": np.zeros_like(params[name]) for name in PARAMS for kind in ("m", "v")}
        zeros = {name: np.zeros((scene.count, *row), np.float32) for name, row in statistics.items()}
        return cls({**params, **moments, **zeros})

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    @property
    def count(self) -> int:
        return len(self.arrays["means"])

    @property
    def opacities(self) -> Array:
        return np.asarray(1 / (1 + np.exp(-self["logit_opacities"].astype(np.float64))))

    @property
    def scales(self) -> Array:
        return np.asarray(np.exp(self["log_scales"].astype(np.float64)))

    @property
    def finite(self) -> Array:
        """Which Gaussians hold only finite numbers."""
        held = [self.arrays[n].reshape(self.count, -1) for n in PARAMS if n in self.arrays]
        finite: Array = np.logical_and.reduce([np.isfinite(a).all(axis=1) for a in held])
        return finite if self._finite_elsewhere is None else finite & self._finite_elsewhere[self.origin]

    def scene(self) -> Gaussians:
        return Gaussians(*(self[name] for name in PARAMS))

    def rearrange(self, rows: Array, fresh: Array) -> None:
        """Row i becomes the former row ``rows[i]``; where ``fresh[i]``, moments and statistics start at zero."""
        for name, array in self.arrays.items():
            moved = array[rows]
            if name not in PARAMS:
                moved[fresh] = 0
            self.arrays[name] = moved
        self.origin = self.origin[rows]
        self.reset = {name: zero[rows] | fresh for name, zero in self.reset.items()}

    def replace(self, name: str, rows: Array, values: Array) -> None:
        """Set a parameter of some rows; the moments stay."""
        changed = self.arrays[name].copy()
        changed[rows] = values
        self.arrays[name] = changed

    def reset_moments(self, rows: Array, names: tuple[str, ...] = PARAMS) -> None:
        """Zero the moments of some rows."""
        for name in names:
            self.reset[name][rows] = True
            for moment in (f"{kind}_{name}" for kind in ("m", "v")):
                if moment in self.arrays:
                    changed = self.arrays[moment].copy()
                    changed[rows] = 0
                    self.arrays[moment] = changed

    def clear_statistics(self) -> None:
        for name in self.arrays.keys() - {*PARAMS, *MOMENTS}:
            self.arrays[name] = np.zeros_like(self.arrays[name])

    def widen(self, coefficients: int) -> None:
        """Add SH coefficients of a higher degree, zero."""
        for name in ("sh", "m_sh", "v_sh"):
            old = self.arrays[name]
            wide = np.zeros((len(old), coefficients, 3), np.float32)
            wide[:, : old.shape[1]] = old
            self.arrays[name] = wide
