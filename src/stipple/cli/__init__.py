"""The command line."""

try:
    from stipple.cli.main import main
except KeyboardInterrupt:  # importing takes a second, and click is not there yet to handle it
    raise SystemExit("Aborted!") from None

__all__ = ["main"]
