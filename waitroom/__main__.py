"""Runs the ``waitroom`` command as ``python -m waitroom``."""

from waitroom.process.bootstrap import command

if __name__ == "__main__":
    command()
