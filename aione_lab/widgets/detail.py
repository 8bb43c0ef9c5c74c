"""`Detail`: in words what is known of the selected symbol, and the button that asks for its calibration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from aione_lab.widgets.cells import number, text
from aione_lab.widgets.charts import part

HERE = Path(__file__).parent
SHOWN = 6  # alerts
LANGUAGES = ("uk", "en")
LONGEST = 3_000  # characters of a narrative


class Detail(anywidget.AnyWidget):
    """Recommendation, narrative (uk or en), last alerts and calibration of one symbol; texts are shown as text.

    ``content`` is what ``content_of`` gives; ``answer`` what became of the last request for a calibration.
    ``on_request`` is called, in the thread that messages come in, when the button is pressed.
    """

    _esm = HERE / "detail.js"
    _css = HERE / "detail.css"

    content = traitlets.Dict().tag(sync=True)
    answer = traitlets.Unicode("").tag(sync=True)
    language = traitlets.Enum(LANGUAGES, "en").tag(sync=True)

    def __init__(self, on_request: Callable[[], None], **traits: Any) -> None:
        super().__init__(**traits)
        self._on_request: Callable[[], None] | None = on_request
        self.on_msg(self._heard)

    def close(self) -> None:
        """Close the widget, and let go of whom it told."""
        self._on_request = None
        super().close()

    def _heard(self, _: Any, message: Any, __: Sequence[Any]) -> None:
        if isinstance(message, Mapping) and message.get("kind") == "calibrate" and self._on_request is not None:
            self._on_request()


def content_of(symbol: str, asset: Mapping[str, Any], alerts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The plain texts that ``Detail`` shows of an asset's state."""
    stage2 = asset.get("stage2")
    narrative, context = part(stage2, "narrative"), part(stage2, "market_context")
    enriched = text(asset.get("long_narrative"), LONGEST)
    seen = [_alert(alert) for alert in alerts][:SHOWN]
    if not seen and isinstance(stage2, Mapping):
        seen = [_alert(stage2)]
    return {
        "symbol": symbol,
        "headline": text(asset.get("signal")),
        "facts": [[name, value] for name, value in _facts(stage2, context) if value],
        "narrative": {language: text(narrative.get(language), LONGEST) for language in LANGUAGES},
        "enriched": enriched,
        "alerts": seen,
        "calibration": text(asset.get("calib_status")) or "unknown",
        "calibrated": text(asset.get("last_calib")),
    }


def _facts(stage2: Any, context: Mapping[str, Any]) -> list[tuple[str, str]]:
    risk = part(stage2, "risk_parameters")
    ratio, room = number(risk.get("risk_reward_ratio")), number(risk.get("room_atr"))
    said = stage2 if isinstance(stage2, Mapping) else {}
    return [
        ("last alert", text(said.get("recommendation"))),
        ("decided by", text(said.get("recommendation_detail")).replace("_", " ")),
        ("scenario", text(context.get("scenario"))),
        ("trend", text(context.get("trend"))),
        ("risk/reward", f"{ratio:.2f}" if ratio == ratio else ""),
        ("room", f"{room:.2f} ATR" if room == room else ""),
    ]


def _alert(stage2: Mapping[str, Any]) -> dict[str, str]:
    confidence = number(stage2.get("confidence"))
    reasons = stage2.get("trigger_reasons")
    return {
        "time": text(stage2.get("timestamp"))[:16].replace("T", " "),
        "said": text(stage2.get("recommendation")),
        "confidence": f"{confidence:.2f}" if confidence == confidence else "",
        "reasons": text(", ".join(map(str, reasons)) if isinstance(reasons, (list, tuple)) else ""),
    }
