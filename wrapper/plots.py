"""Measures over the time before, during and after a run as SVG pictures that suit a light and a dark page."""
from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

from ansible_collections.marketsage.rollback.plugins.module_utils import watching

# Written into the picture where the page's own colour is to be, and replaced by it.
_TEXT = "#010203"
_WIDTH, _HEIGHT = 9.0, 3.0
# An SLA so many times above the highest value is told, not drawn: it would make everything else flat.
_ROOM = 3
_COLOURS = ("#3b82f6", "#f59e0b", "#a855f7")
# Where the name of an event stands, one below the other.
_ROWS = (0.97, 0.87, 0.77, 0.67)


def is_possible() -> bool:
    """Whether the library that draws is installed."""
    try:
        import matplotlib  # noqa: F401, PLC0415  an extra
    except ImportError:
        return False
    return True


def plot(title: str, measures: list[dict[str, Any]], samples: dict[str, Any], events: dict[str, float]) -> str:
    """One picture: the samples (seconds since 1970, value) of each measure, its SLA, and the events at their times."""
    import matplotlib as mpl  # noqa: PLC0415  an extra
    from matplotlib.dates import DateFormatter, date2num  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    settings: Any = {
        "svg.fonttype": "none", "svg.hashsalt": "rollback", "font.size": 9, "font.family": "sans-serif",
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _TEXT),
    }  # fmt: skip
    with mpl.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = figure.add_subplot()
        highest = max((value for one in measures for _at, value in samples[one["name"]]), default=0.0)
        for one, colour in zip(measures, _COLOURS, strict=False):
            drawn = [(date2num(_moment(at)), value) for at, value in samples[one["name"]]]
            label = f"{one['name']} (SLA {watching.number(one['limit'])})"
            axes.plot([at for at, _value in drawn], [value for _at, value in drawn], colour, label=label)
            if one["limit"] <= _ROOM * highest:
                axes.axhline(one["limit"], color=colour, linestyle=":")
        for number, (name, at) in enumerate(sorted(events.items(), key=lambda one: one[1])):
            axes.axvline(date2num(_moment(at)), color=_TEXT, linewidth=0.8, alpha=0.6)
            row = _ROWS[number % len(_ROWS)]
            axes.annotate(name, (date2num(_moment(at)), row), xycoords=("data", "axes fraction"), xytext=(3, 0),
                          textcoords="offset points", va="top", fontsize=8)  # fmt: skip
        axes.set_title(title, loc="left")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S", tz=UTC))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)
        picture = io.StringIO()
        figure.savefig(picture, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = picture.getvalue()
    return text[text.index("<svg") :].replace(_TEXT, "currentColor")


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
