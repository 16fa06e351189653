"""The fuzzer's own ops exist while its tests run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fuzz import composites


@pytest.fixture(autouse=True, scope="module")
def fuzz_ops() -> Iterator[None]:
    with composites.registered():
        yield
