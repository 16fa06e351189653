"""The command line."""

try:
    from stipple.cli.main import main
except KeyboardInterrupt:  # importing takes a second, and click is not there yet to end in one word
    raise SystemExit("Aborted!") from None

__all__ = ["main"]
