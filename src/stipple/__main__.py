"""``python -m stipple`` is the command ``stipple``."""

from stipple.cli import main

if __name__ == "__main__":
    main(prog_name="stipple")
