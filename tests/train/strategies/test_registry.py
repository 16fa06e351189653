"""Strategies are found by their names, and all that training does for one is declared in its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from captures import truth
from stipple import Gaussians, ir
from stipple.errors import InputError
from stipple.formats.captures import Frame
from stipple.runtime import Session
from stipple.train import make_config
from stipple.train.checkpoint import checkpoint_bytes
from stipple.train.stepper import Stepper
from stipple.train.strategies import STRATEGIES, StepParts, Traits
from stipple.train.strategies.base import strategy
from stipple.train.strategies.fixed import Fixed


@pytest.fixture
def mine() -> Iterator[type[Fixed]]:
    """A strategy with defaults, a statistic and moves of the means of its own."""

    @strategy("mine")
    class Mine(Fixed):
        traits = Traits(regularisers=0.25, stop=0.125, statistics={"pull": (3,)})

        def updated_statistics(self, parts: StepParts) -> Mapping[str, ir.Value]:
            return {"pull": parts.statistics["pull"] + ir.abs(parts.gradients["means"])}

        def moved_means(self, parts: StepParts, means: ir.Value) -> ir.Value:
            return means + parts.graph.input("drift", [3])

        def feeds(self, step: int, rates: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
            return {"drift": np.array([0.25 * step, 0, rates["means"]], np.float32)}

    yield Mine
    del STRATEGIES["mine"]


@pytest.mark.usefixtures("mine")
def test_the_configuration_takes_a_strategys_defaults() -> None:
    config = make_config(None, {"density": {"strategy": "mine"}, "schedule": {"steps": 800}})
    assert (config.regularisers, config.last_change) == ((0.25, 0.25), 100)


def test_a_name_that_no_strategy_has_is_refused() -> None:
    with pytest.raises(InputError, match=r"density\.strategy: expected one of default, .*mcmc.*got 'mine'"):
        make_config(None, {"density": {"strategy": "mine"}})


@pytest.mark.usefixtures("mine")
def test_a_strategy_adds_to_every_step_and_its_statistics_stay_with_their_gaussians() -> None:
    made = truth()
    scene = Gaussians.from_linear(made.points, 0.12, 0.5, made.colors / 255)
    config = make_config(None, {"density": {"strategy": "mine"}, "rates": {"means": 0.0}})
    stepper = Stepper(Session("cpu"), config, 1)
    stepper.start(scene)
    assert not stepper.arrays()["pull"].any()
    pulls = []
    for step in (1, 2):
        stepper.run(step, 0, Frame(made.cameras[0], made.photos[0]))
        pulls.append(stepper.arrays()["pull"])
    np.testing.assert_allclose(stepper.scene().means, scene.means + np.float32([0.75, 0, 0]), atol=1e-6)
    assert pulls[0].shape == (scene.count, 3)
    assert (pulls[0] > 0).any(axis=1).all()
    assert (pulls[1] >= pulls[0]).all()
    assert (pulls[1] > pulls[0]).any()
    stepper.edit(lambda state: state.rearrange(np.array([7, 7, 3]), np.array([False, True, False])))
    np.testing.assert_array_equal(stepper.arrays()["pull"], [pulls[1][7], [0, 0, 0], pulls[1][3]])
    stepper.run(3, 0, Frame(made.cameras[0], made.photos[0]))
    assert stepper.state()["pull"].shape == (3, 3), "checkpoints and SH of a higher degree take it along"


@pytest.mark.usefixtures("mine")
def test_checkpoints_have_space_for_statistics() -> None:
    sizes = {
        name: checkpoint_bytes(10, make_config(None, {"density": {"strategy": name}}))
        for name in ("none", "default", "mine")
    }
    assert sizes["default"] - sizes["none"] == 10 * 2 * 4
    assert sizes["mine"] - sizes["none"] == 10 * 3 * 4


def test_a_statistic_cannot_have_a_parameters_name() -> None:
    with pytest.raises(TypeError, match="a statistic cannot be called m_sh, which the state holds already"):

        @strategy("clashing")
        class Clashing(Fixed):
            traits = Traits(statistics={"m_sh": ()})

    assert "clashing" not in STRATEGIES
