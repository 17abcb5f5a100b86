"""Lets ``python -m waitroom`` stand for the ``waitroom`` command."""

from waitroom.start import command

if __name__ == "__main__":
    command()
