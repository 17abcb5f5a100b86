"""Lets ``python -m waitroom`` stand for the ``waitroom`` command."""

from waitroom.process.bootstrap import command

if __name__ == "__main__":
    command()
