"""`ReadOnly`: a dictionary that cannot be changed."""

from aione_lab.settings import ReadOnly

__all__ = ["ReadOnly"]
