"""`save_figure`: a figure as a file, by the ending of its name."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import plotly.graph_objects as go

from aione_lab.engine.params import check_kind
from aione_lab.errors import InputError
from aione_lab.figures.theme import CONFIG
from aione_lab.files import may_be_file, write_whole

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".webp")


def save_figure(figure: go.Figure, path: str | os.PathLike[str]) -> Path:
    """Write ``figure`` to ``path``: ``.html`` (opens without a network), ``.json`` or a picture (``.png``, ``.svg`` …).

    Pictures need the package kaleido and a Chrome or Chromium; a page needs nothing, and its camera saves a PNG.
    Raises InputError for another ending, a folder that is not there, and where kaleido is missing.
    """
    check_kind("figure", figure, go.Figure)
    place = Path(path)
    known = (".html", ".json", *PICTURES)
    if place.suffix not in known:
        raise InputError.of("path", str(path), f"must end in one of {', '.join(known)}")
    if not may_be_file(place):
        raise InputError.of("path", str(path), "must be a file in a folder that is there")
    if place.suffix == ".html":
        content = figure.to_html(include_plotlyjs=True, config=dict(CONFIG)).encode()
    elif place.suffix == ".json":
        content = figure.to_json().encode()
    elif importlib.util.find_spec("kaleido") is None:
        raise InputError.of("path", str(path), "pictures need kaleido (pip install kaleido); .html needs nothing")
    else:
        content = figure.to_image(format=place.suffix[1:])
    try:
        write_whole(place, content)
    except OSError as error:
        raise InputError.of("path", str(path), f"cannot be written ({error.strerror or error})") from None
    return place
