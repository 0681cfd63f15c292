"""The report's figures, as SVG that takes the page's font and its light or dark colours."""

import io
import re
from typing import Any, Final

from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.assemble import Row, Table
from workflow_scripts.tables.cohort_counts import SplitCounts

# Okabe and Ito's palette, without its yellow, which does not show on white.
_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS: Final = ("o", "s", "D", "^", "v", "P")
_CONTROL_MARKERS: Final = ("x", "+", "1", "2")

_CODES: Final = (
    *("AT", "CM", "CD", "ED", "EC", "Frac.", "LL"),
    *("LO", "NF", "PE", "PO", "PN", "PT", "SD"),
)
"""The paper's codes of FINDINGS (its Table 9)."""

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


def fid_per_pathology(table: Table, cohort: dict[str, SplitCounts]) -> str | None:
    """Draw FID per finding: models with intervals, controls, and the floor as a mark.

    Args:
        table: Table 2.
        cohort: counts per split; findings are ordered by how many training images show them.

    Returns:
        An `<svg>` element, or None where no FID is known.
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
    axes.set_xlabel("FID (RAD-DINO), lower is better")
    axes.grid(axis="x", color=_RULE, linewidth=0.7, zorder=0)
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return _svg(figure, "pathology", "FID per pathology with the floor of real images")


def prevalence(table: Table, cohort: dict[str, SplitCounts]) -> str | None:
    """Draw FID against the number of training images with the finding, with the floor.

    Returns:
        An `<svg>` element, or None where no FID or no count is known.
    """
    rows = [row for row in table.rows if row.kind == "model" and _valued(row)]
    counted = [j for j in range(len(FINDINGS)) if _count(cohort, FINDINGS[j]) > 0]
    counted.sort(key=lambda j: (_count(cohort, FINDINGS[j]), j))
    if not rows or not counted:
        return None
    plt = _pyplot()
    figure, axes = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
    floor = next((row for row in table.rows if row.kind == "floor"), None)
    series = [(row, style) for row, style in zip(rows, _styles(rows), strict=True)]
    if floor is not None and _valued(floor):
        series.append((floor, {**_FLOOR, "marker": "_", "markersize": 11}))
    tops: dict[int, tuple[float, list[str]]] = {}
    for row, style in series:
        points = [(j, row.cells[j].value) for j in counted]
        known = [(j, value) for j, value in points if value is not None]
        xs = [_count(cohort, FINDINGS[j]) for j, _ in known]
        ys = [value for _, value in known]
        linestyle = (0, (4, 3)) if row.kind == "floor" else ""
        axes.plot(xs, ys, linestyle=linestyle, linewidth=1.0, label=row.label, zorder=3, **style)
        for j, value in known:
            count = _count(cohort, FINDINGS[j])
            top, codes = tops.get(count, (value, []))
            tops[count] = max(value, top), list(dict.fromkeys([*codes, _CODES[j]]))
    _logarithmic(axes)
    axes.set_xlabel("Training images with the finding (logarithmic)")
    axes.set_ylabel("FID (RAD-DINO)")
    axes.grid(color=_RULE, linewidth=0.7, zorder=0)
    axes.margins(y=0.16)
    for count, (top, codes) in tops.items():
        axes.annotate(
            ", ".join(codes),
            (count, top),
            xytext=(0, 7),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color=_MUTED,
        )
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8.5)
    return _svg(figure, "prevalence", "FID against the number of training images of a finding")


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
    styles: list[dict[str, Any]] = []
    models = controls = 0
    for row in rows:
        if row.kind == "control":
            marker = _CONTROL_MARKERS[controls % len(_CONTROL_MARKERS)]
            styles.append({"color": _MUTED, "marker": marker, "markersize": 5.5})
            controls += 1
        else:
            colour = _COLOURS[models % len(_COLOURS)]
            marker = _MARKERS[(models + models // len(_COLOURS)) % len(_MARKERS)]
            styles.append({"color": colour, "marker": marker, "markersize": 5.5})
            models += 1
    return styles


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
