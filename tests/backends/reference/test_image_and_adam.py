"""Image losses and Adam against plain definitions and central differences."""

from __future__ import annotations

import numpy as np
import pytest

from scenes import relative_error
from stipple import ir
from stipple.errors import GraphError, InputError
from stipple.runtime import Session


def run_loss(name: str, image: np.ndarray, target: np.ndarray, **attrs: str) -> dict[str, np.ndarray]:
    graph = ir.Graph("loss")
    a = graph.input("image", ["H", "W", "C"], "f64")
    b = graph.input("target", ["H", "W", "C"], "f64")
    loss = getattr(ir, name)(a, b, **attrs)
    graph.output("loss", loss)
    v_image, v_target = ir.grad(graph, loss * 3.0, [a, b])
    graph.output("v_image", v_image)
    graph.output("v_target", v_target)
    return Session("reference").compile(graph).run({"image": image, "target": target})


def plain_ssim(a: np.ndarray, b: np.ndarray, padding: str) -> float:
    """The definition, window by window."""
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    if padding == "same":
        a, b = (np.pad(i, ((5, 5), (5, 5), (0, 0))) for i in (a, b))
    values = []
    for y in range(a.shape[0] - 10):
        for x in range(a.shape[1] - 10):
            for c in range(a.shape[2]):
                p, q = a[y : y + 11, x : x + 11, c], b[y : y + 11, x : x + 11, c]
                mp, mq = np.sum(window * p), np.sum(window * q)
                vp, vq = np.sum(window * (p - mp) ** 2), np.sum(window * (q - mq) ** 2)
                cov = np.sum(window * (p - mp) * (q - mq))
                top = (2 * mp * mq + 1e-4) * (2 * cov + 9e-4)
                values.append(top / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4)))
    return float(np.mean(values))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_ssim_is_its_definition(padding: str) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 14, 17, 2))
    out = run_loss("image_ssim", a, b, padding=padding)
    assert float(out["loss"]) == pytest.approx(plain_ssim(a, b, padding), rel=1e-12)
    assert float(run_loss("image_ssim", a, a, padding=padding)["loss"]) == pytest.approx(1, abs=1e-12)


def test_ssim_of_an_image_smaller_than_the_window() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.uniform(size=(2, 3, 4, 1))
    assert float(run_loss("image_ssim", a, b)["loss"]) == pytest.approx(plain_ssim(a, b, "same"), rel=1e-12)
    with pytest.raises(InputError, match="at least 11 x 11"):
        run_loss("image_ssim", a, b, padding="valid")


@pytest.mark.parametrize(
    ("name", "attrs"),
    [("image_l1", {}), ("image_ssim", {}), ("image_ssim", {"padding": "valid"})],
)
def test_gradients_of_image_losses(name: str, attrs: dict[str, str]) -> None:
    rng = np.random.default_rng(3)
    images = {"image": rng.uniform(size=(13, 12, 2)), "target": rng.uniform(size=(13, 12, 2))}
    out = run_loss(name, images["image"], images["target"], **attrs)
    for which, array in images.items():
        wanted = np.zeros(array.size)
        for i in range(wanted.size):
            losses = []
            for step in (-1e-5, 1e-5):
                moved = {k: v.copy() for k, v in images.items()}
                moved[which].flat[i] += step
                losses.append(3 * float(run_loss_value(name, moved, attrs)))
            wanted[i] = (losses[1] - losses[0]) / 2e-5
        assert relative_error(out[f"v_{which}"].ravel(), wanted) < 1e-6


def run_loss_value(name: str, images: dict[str, np.ndarray], attrs: dict[str, str]) -> float:
    from stipple.backends.reference import image

    if name == "image_l1":
        return float(image.l1(images["image"], images["target"]))
    return float(image.ssim(images["image"], images["target"], attrs.get("padding", "same")))


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_both_losses_at_once_are_the_two(padding: str) -> None:
    rng = np.random.default_rng(6)
    images = rng.uniform(size=(2, 15, 13, 2))
    graph = ir.Graph("both")
    a, b = graph.input("a", ["H", "W", "C"], "f64"), graph.input("b", ["H", "W", "C"], "f64")
    together, apart = ir.image_l1_ssim(a, b, padding), (ir.image_l1(a, b), ir.image_ssim(a, b, padding))
    for name, (l1, ssim) in (("one", together), ("two", apart)):
        loss = 0.8 * l1 - 0.3 * ssim
        graph.output(f"{name}_loss", loss)
        for letter, value in zip("ab", ir.grad(graph, loss, [a, b]), strict=True):
            graph.output(f"{name}_v_{letter}", value)
    out = Session("reference").compile(graph).run({"a": images[0], "b": images[1]})
    for what in ("loss", "v_a", "v_b"):
        np.testing.assert_allclose(out[f"one_{what}"], out[f"two_{what}"], rtol=1e-12, atol=1e-15)


def test_l1_of_equal_images_has_no_gradient() -> None:
    a = np.random.default_rng(4).uniform(size=(5, 6, 3))
    out = run_loss("image_l1", a, a)
    assert out["loss"] == 0
    assert np.all(out["v_image"] == 0)


def test_adam_takes_a_rate_for_each_column() -> None:
    """Each column moves as it would alone with its rate."""
    rng = np.random.default_rng(0)
    p, g = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    rates = np.array([0.1, 0.0, 0.3])

    def moved(rate: np.ndarray | float) -> np.ndarray:
        graph = ir.Graph("adam")
        values = [graph.constant(a, "f64") for a in (p, g, np.zeros_like(p), np.ones_like(p))]
        graph.output("p", ir.adam(*values, graph.constant(rate, "f64"), graph.constant(1.0, "f64")).param)
        return Session("reference").compile(graph).run({})["p"]

    together = moved(rates)
    for k, rate in enumerate(rates):
        np.testing.assert_array_equal(together[:, k], moved(float(rate))[:, k])
    with pytest.raises(GraphError, match="lr: expected a number, or one for each column"):
        moved(np.zeros(2))


def test_adam_follows_its_paper() -> None:
    graph = ir.Graph("adam")
    param, m, v = (graph.param(n, ["N", 2], "f64") for n in ("p", "m", "v"))
    grad = graph.input("grad", ["N", 2], "f64")
    step, lr = graph.input("step", [], "f64"), graph.input("lr", [], "f64")
    update = ir.adam(param, grad, m, v, lr, step, beta1=0.8, beta2=0.95, eps=1e-8)
    for target, value in zip((param, m, v), update, strict=True):
        graph.update(target, value)
    exe = Session("reference").compile(graph)
    rng = np.random.default_rng(5)
    p, mean, square = rng.normal(size=(4, 2)), np.zeros((4, 2)), np.zeros((4, 2))
    for name, value in (("p", p), ("m", mean), ("v", square)):
        exe.set_param(name, value)
    for t in range(1, 6):
        g = rng.normal(size=(4, 2))
        exe.run({"grad": g, "step": float(t), "lr": 0.1})
        mean, square = 0.8 * mean + 0.2 * g, 0.95 * square + 0.05 * g * g
        p = p - 0.1 * (mean / (1 - 0.8**t)) / (np.sqrt(square / (1 - 0.95**t)) + 1e-8)
    np.testing.assert_allclose(exe.get_param("p"), p, rtol=1e-13)
    np.testing.assert_allclose(exe.get_param("m"), mean, rtol=1e-13)
    np.testing.assert_allclose(exe.get_param("v"), square, rtol=1e-13)
    with pytest.raises(InputError, match="counts from 1"):
        exe.run({"grad": g, "step": 0.0, "lr": 0.1})
