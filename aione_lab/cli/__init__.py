"""The program ``aione-lab``: everything the lab does from a shell, for people and for machines."""

from aione_lab.cli.program import main

__all__ = ["main"]
