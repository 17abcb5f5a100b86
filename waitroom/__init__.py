"""Waitroom: a virtual waiting room and admission gateway in front of an existing web shop."""

__version__ = "0.2.0"
