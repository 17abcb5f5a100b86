"""Lets ``python -m waitroom`` stand for the ``waitroom`` command."""

from waitroom.cli import main

if __name__ == "__main__":
    main()
