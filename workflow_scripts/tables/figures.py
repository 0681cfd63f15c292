"""The report's figures, as SVG that takes the page's font and its light or dark colours."""

import io
import itertools
import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.assemble import Row, Table
from workflow_scripts.tables.cohort_counts import SplitCounts
from workflow_scripts.tables.costs import ALL, STAGES
from workflow_scripts.tables.prevalence import MEASURES, Measured, correlation

# Okabe and Ito's palette, without its yellow, which does not show on white.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS: Final = ("o", "s", "D", "^", "v", "P")
_CONTROL_MARKERS: Final = ("x", "+", "1", "2")

_FLOOR: Final[dict[str, Any]] = {
    "color": "#9a9c9e",
    "marker": "|",
    "markersize": 15,
    "markeredgewidth": 3.2,
}

# Stand-ins that become the page's colours.
_INK, _MUTED, _RULE, _PAPER = "#101112", "#717273", "#d1d2d3", "#fdfefd"
_THEMED: Final = {
    _INK: "var(--ink)",
    _MUTED: "var(--muted)",
    _RULE: "var(--rule)",
    _PAPER: "var(--paper)",
}


def per_pathology(table: Table, cohort: dict[str, SplitCounts], metric: str) -> str | None:
    """Draw a metric per finding: models with intervals, controls, and the floor as a mark.

    Args:
        table: Table 2 or 2b.
        cohort: counts per split; findings are ordered by how many training images show them.
        metric: what the table shows, for people.

    Returns:
        An `<svg>` element, or None where no value is known.
    """
    order = sorted(range(len(FINDINGS)), key=lambda j: (-_count(cohort, FINDINGS[j]), j))
    rows = [row for row in table.rows if row.kind in ("model", "control") and _valued(row)]
    if not rows:
        return None
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7.6, 6.4), layout="constrained")
    floor = next((row for row in table.rows if row.kind == "floor"), None)
    if floor is not None and _valued(floor):
        known = [(y, floor.cells[j].value) for y, j in enumerate(order)]
        marks = [(value, y) for y, value in known if value is not None]
        axes.plot(*zip(*marks, strict=True), linestyle="", label=floor.label, zorder=1, **_FLOOR)
    step = 0.62 / max(len(rows), 1)
    for i, (row, style) in enumerate(zip(rows, _styles(rows), strict=True)):
        for y, j in enumerate(order):
            cell = row.cells[j]
            if cell.value is None:
                continue
            at = y + (i - (len(rows) - 1) / 2) * step
            if cell.interval is not None:
                axes.plot(cell.interval, [at, at], color=style["color"], linewidth=1.1, zorder=2)
            first = next(k for k in order if row.cells[k].value is not None)
            label = row.label if j == first else None
            axes.plot([cell.value], [at], linestyle="", label=label, zorder=3, **style)
    labels = []
    for j in order:
        counts = [n for row in rows if (n := row.cells[j].n) is not None]
        labels.append(f"{FINDINGS[j]}  (n = {max(counts):,})" if counts else FINDINGS[j])
    axes.set_yticks(range(len(order)), labels)
    axes.invert_yaxis()
    values = [cell.value for row in rows for cell in row.cells if cell.value is not None]
    if min(values) > 0 and max(values) / min(values) > 12:
        _logarithmic(axes)
    axes.set_xlabel(f"{metric} (RAD-DINO), lower is better")
    axes.grid(axis="x", color=_RULE, linewidth=0.7, zorder=0)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return _svg(figure, f"pathology-{metric.lower()}", f"{metric} per pathology")


def prevalence(measured: Sequence[Measured], floor: np.ndarray, counts: np.ndarray) -> str | None:
    """Draw FID, FID less its floor and KID against the training images with each finding.

    Each panel's title has the mean rank correlation of the models; FID's also has the floor's.

    Args:
        measured: values per finding of models (controls are left out).
        floor: of FID, (14,).
        counts: training images with each finding, (14,).

    Returns:
        An `<svg>` element, or None where no value or no count is known.
    """
    models = [entry for entry in measured if entry.kind == "model"]
    shown = counts > 0
    if not shown.any() or not any(np.isfinite(m.values["fid"][shown]).any() for m in models):
        return None
    plt = _pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(9.6, 3.9), layout="constrained")
    order = [j for j in np.argsort(-counts, kind="stable") if shown[j]]
    for axes, (key, name) in zip(panels, MEASURES.items(), strict=True):
        if key == "fid" and np.isfinite(floor[order]).any():
            style = {**_FLOOR, "marker": "_", "markersize": 11}
            axes.plot(
                counts[order],
                floor[order],
                linestyle=(0, (4, 3)),
                linewidth=1.0,
                label="Floor: real against real",
                **style,
            )
        else:
            axes.axhline(0, color=_MUTED, linewidth=0.8)
        for entry, style in zip(models, _model_styles(len(models)), strict=True):
            label = entry.label if key == "fid" else None
            values = entry.values[key][order]
            axes.plot(counts[order], values, linestyle="", label=label, zorder=3, **style)
        _logarithmic(axes)
        axes.set_title(f"{name}\n{_told(key, models, floor, counts)}", fontsize=9, loc="left")
        axes.grid(color=_RULE, linewidth=0.7, zorder=0)
        axes.tick_params(axis="x", labelsize=8)
    panels[1].set_xlabel("Training images with the finding (logarithmic)")
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return _svg(figure, "prevalence", "Fidelity against the number of training images of a finding")


def costs(table: Table) -> tuple[str, str] | None:
    """Draw what each model cost, a bar of its stages; GPU-hours, or wall time where there are none.

    Args:
        table: the cost table.

    Returns:
        An `<svg>` element and its caption, or None where nothing is known.
    """
    parts = [row for row in table.rows if row.kind != "total" and row.attributes[0] != ALL]
    for j in range(2):
        bars = {(row.key, row.attributes[0]): row.cells[j].value for row in parts}
        if any(bars.values()):
            break
    else:
        return None
    column = table.layout.columns[j]
    owners = {row.key: row.label for row in parts if bars[row.key, row.attributes[0]]}
    name, scale = column.header, 1.0
    if column.metric == "wall_hours" and max(filter(None, bars.values())) < 1:
        name, scale = "Wall time (min)", 60.0
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(8.6, 1.4 + 0.36 * len(owners)), layout="constrained")
    left = np.zeros(len(owners))
    for stage, style in _stage_styles().items():
        widths = scale * np.array([bars.get((key, stage)) or 0.0 for key in owners])
        if widths.any():
            axes.barh(range(len(owners)), widths, left=left, label=stage, **style)
            left += widths
    unknown = {key for (key, _), value in bars.items() if value is None}
    for y, (key, width) in enumerate(zip(owners, left, strict=True)):
        least = "≥ " if key in unknown else ""
        axes.annotate(
            f"{least}{width:,.3g}",
            (width, y),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(range(len(owners)), list(owners.values()))
    axes.invert_yaxis()
    axes.margins(x=0.09)
    axes.set_xlabel(name)
    axes.grid(axis="x", color=_RULE, linewidth=0.7, zorder=0)
    figure.legend(loc="outside upper left", ncols=5, frameon=False, fontsize=8.5)
    title = f"{name} by model and stage"
    text = f"{title}, over all attempts; what models share stands last."
    if unknown:
        text += " What is not known, a dash in the table, is not drawn."
    return _svg(figure, "costs", title), text


def _stage_styles() -> dict[str, dict[str, Any]]:
    """Return how each stage's part of a bar is drawn: the palette, and then hatched again."""
    return {
        stage: {
            "color": _COLOURS[i % len(_COLOURS)],
            "hatch": "" if i < len(_COLOURS) else "////",
            "edgecolor": _PAPER,
            "linewidth": 0.6,
            "height": 0.66,
            "zorder": 2,
        }
        for i, stage in enumerate(STAGES.values())
    }


def _told(key: str, models: Sequence[Measured], floor: np.ndarray, counts: np.ndarray) -> str:
    found = [correlation(counts, model.values[key])[0] for model in models]
    known = [value for value in found if value is not None]
    text = f"mean rank correlation {np.mean(known):+.2f}" if known else "no rank correlation"
    perfect = correlation(counts, floor)[0] if key == "fid" else None
    return text + ("" if perfect is None else f"; floor {perfect:+.2f}")


def _logarithmic(axes) -> None:  # type: ignore[no-untyped-def]
    """Make the x axis logarithmic, its ticks 1, 2, 5, 10, ... in plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))


def _count(cohort: dict[str, SplitCounts], finding: str) -> int:
    return cohort["train"].positives[finding] if "train" in cohort else 0


def _valued(row: Row) -> bool:
    return any(cell.value is not None for cell in row.cells)


def _styles(rows: list[Row]) -> list[dict[str, Any]]:
    """Return each row's marker and colour: models by palette, controls gray; never colour alone."""
    models = iter(_model_styles(len(rows)))
    controls = itertools.cycle(_CONTROL_MARKERS)
    return [
        {"color": _MUTED, "marker": next(controls), "markersize": 5.5}
        if row.kind == "control"
        else next(models)
        for row in rows
    ]


def _model_styles(n: int) -> list[dict[str, Any]]:
    """Return n markers and colours; the marker shifts when the colours start again."""
    return [
        {
            "color": _COLOURS[i % len(_COLOURS)],
            "marker": _MARKERS[(i + i // len(_COLOURS)) % len(_MARKERS)],
            "markersize": 5.5,
        }
        for i in range(n)
    ]


def _pyplot():  # type: ignore[no-untyped-def]
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    plt.rcdefaults()
    plt.rcParams.update(
        {
            "svg.fonttype": "none",  # text stays text: it takes the page's font and is searchable
            "font.size": 9.5,
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "axes.edgecolor": _MUTED,
            "axes.facecolor": "none",
            "figure.facecolor": "none",
            "xtick.color": _MUTED,
            "ytick.color": _MUTED,
            "xtick.labelcolor": _INK,
            "ytick.labelcolor": _INK,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )
    return plt


def _svg(figure, name: str, title: str) -> str:  # type: ignore[no-untyped-def]
    """Return the figure as an inline `<svg>`: same bytes each time, ids its own, page colours."""
    import matplotlib
    import matplotlib.pyplot as plt

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = (
        re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", svg[: svg.index(">")])
        + (svg[svg.index(">") :])
    )
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", svg)
    svg = re.sub(r'id="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'xlink:href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    for stand_in, variable in _THEMED.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
