"""Signals."""

from __future__ import annotations

import signal
import sys

import pytest

from stipple.train.stop import stop_on_signal


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGHUP")
def test_a_closed_terminal_stops_and_what_is_ignored_stays_so() -> None:
    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stop_on_signal() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal == signal.SIGHUP
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL, "a second one is obeyed"
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with stop_on_signal() as request:
            signal.raise_signal(signal.SIGHUP)
            assert request.signal is None, "nohup"
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
