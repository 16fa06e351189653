"""The noise of MCMC training: its distribution, its gate, its repeatability, and devices against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.transform import Rotation

from stipple import ir
from stipple.backends.cpu import CpuBackend
from stipple.backends.reference.noise import hash4, normals
from stipple.runtime import Session


def moved(
    device: str | Session, amount: float = 1.0, key: tuple[int, int] = (3, 7), **change: np.ndarray
) -> np.ndarray:
    rng = np.random.default_rng(0)
    count = 20_000
    arrays = {
        "means": rng.normal(size=(count, 3)),
        "quats": rng.normal(size=(count, 4)),
        "scales": rng.uniform(0.1, 1, (count, 3)),
        "opacities": np.full(count, 0.005),
    }
    arrays = {n: np.asarray(change.get(n, a), np.float32) for n, a in arrays.items()}
    graph = ir.Graph("noise")
    values = [graph.input(n, ["N", *a.shape[1:]]) for n, a in arrays.items()]
    graph.output("means", ir.splat_noise(*values, amount, graph.input("key", [2], "i32")))
    return (
        (Session(device) if isinstance(device, str) else device)
        .compile(graph)
        .run({**arrays, "key": np.array(key, np.int32)})["means"]
    )


def test_the_hash_is_pcg4d() -> None:
    """Against the published algorithm in plain Python integers."""
    mask = 0xFFFFFFFF

    def plain(v: list[int]) -> list[int]:
        x, y, z, w = ((n * 1664525 + 1013904223) & mask for n in v)
        for final in (False, True):
            x = (x + y * w) & mask
            y = (y + z * x) & mask
            z = (z + x * y) & mask
            w = (w + y * z) & mask
            if not final:
                x, y, z, w = (n ^ (n >> 16) for n in (x, y, z, w))
        return [x, y, z, w]

    words = np.random.default_rng(0).integers(0, 2**32, (4, 100), dtype=np.uint64).astype(np.uint32)
    made = np.array(hash4(list(words)))
    wanted = np.array([plain([int(n) for n in column]) for column in words.T]).T
    np.testing.assert_array_equal(made, wanted)


def test_normals_are_normal_and_independent() -> None:
    made = normals(100_000, np.array([1, 2]))
    for column in made.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(made.T) - np.eye(3)).max() < 0.015
    other = normals(100_000, np.array([1, 3]))
    assert abs(np.corrcoef(made[:, 0], other[:, 0])[0, 1]) < 0.015
    np.testing.assert_array_equal(normals(500, np.array([1, 2])), made[:500])


def test_noise_has_the_covariance_squared_of_its_gaussian() -> None:
    """Moves are covariance @ normal times the gate, so their own covariance is the square."""
    rotation = Rotation.from_rotvec([0.3, -0.5, 0.2])
    x, y, z, w = rotation.as_quat()
    quats = np.tile([2 * w, 2 * x, 2 * y, 2 * z], (20_000, 1))
    scales = np.tile([0.3, 0.6, 1.0], (20_000, 1))
    still = np.zeros((20_000, 3))
    given = moved("reference", 0.5, means=still, quats=quats, scales=scales)
    covariance = rotation.as_matrix() @ np.diag([0.09, 0.36, 1.0]) @ rotation.as_matrix().T
    gate = 1 / (1 + np.exp(-100 * ((1 - 0.005) - 0.995)))
    np.testing.assert_allclose(np.cov(given.T), (0.5 * gate) ** 2 * covariance @ covariance, atol=0.003)
    opaque = moved("reference", means=still, opacities=np.full(20_000, 0.5))
    assert np.abs(opaque).max() < 1e-12


def test_devices_follow_the_reference(session: Session) -> None:
    quats = np.random.default_rng(1).normal(size=(20_000, 4))
    quats[5] = 0
    means = np.zeros((20_000, 3))
    means[6] = np.nan
    wanted, given = moved("reference", quats=quats, means=means), moved(session, quats=quats, means=means)
    np.testing.assert_allclose(given, wanted, atol=2e-5)
    assert not given[5].any(), "a Gaussian without a direction stays"
    assert np.isnan(given[6]).all()


def test_same_key_same_bits(session: Session) -> None:
    one = moved(session)
    np.testing.assert_array_equal(one, moved(session))
    assert not np.array_equal(one, moved(session, key=(3, 8)))
    assert not np.array_equal(one, moved(session, key=(4, 7)))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(threads: int) -> None:
    np.testing.assert_array_equal(moved(Session(CpuBackend(threads=threads))), moved("cpu"))
