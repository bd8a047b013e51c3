"""``python -m jdlopt.cli`` is ``jdlopt``."""

from jdlopt.cli import script

if __name__ == "__main__":
    script()
