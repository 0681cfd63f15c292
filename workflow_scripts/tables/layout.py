"""The layout of each table, read from `specs/`: a YAML file for each table, named by its stem.

A spec has the fields of `Layout`. Its columns are metric keys; header, direction and decimals are
those that the metric's stage declares, unless the column says otherwise:

    columns:
      - coverage                                         # "Coverage ↑", three decimals
      - {metric: fid, header: FID (Inception), family: inception_v3}
      - {rank_of: kid, header: KID}                      # of the models' ranks by a metric
      - metric: auroc                                    # fourteen columns
        per_finding: [Atelec., C.Megaly, Consol., ...]

`explanation` is text, or a list of texts and of `phrase: name` from `phrases.yaml`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

import yaml

from workflow_scripts.common.folders import every_part
from workflow_scripts.common.manifest import FINDINGS
from workflow_scripts.tables.metrics import METRICS


@dataclass(frozen=True)
class Column:
    """One metric of a table (a row where the table is transposed).

    Attributes:
        header: as the paper has it.
        metric: the metric's key.
        direction: `higher` or `lower` is better.
        decimals: digits after the point, for readers; the CSV has all digits. None writes a number
            as short as it is.
        subset: `all` or a finding.
        family: the family of its measurements; None is the table's.
        protocol: the protocol of its measurements, if a table shows both.
        rank_of: the metric whose ranks it shows, where it does.
        block: the block of a model's config that has the setting; None for `finetune`.
        setting: the value of the setting that the column's models have, where columns differ in it.
    """

    header: str
    metric: str
    direction: str
    decimals: int | None
    subset: str = "all"
    family: str | None = None
    protocol: str | None = None
    rank_of: str | None = None
    block: str | None = None
    setting: str | None = None

    @property
    def is_gain(self) -> bool:
        """Whether it is a difference to training on real data alone."""
        return self.metric.endswith("_gain")

    @property
    def variant(self) -> str:
        """What tells it from other columns of its metric and subset."""
        return self.setting or self.block or self.family or ""


@dataclass(frozen=True)
class RealRow:
    """A row of real data alone: measurements of the model `real`.

    Attributes:
        label: the row's name for readers.
        family: the family of its measurements.
        protocol: the protocol of the measurements, if a table shows both.
    """

    label: str
    family: str
    protocol: str | None = None


@dataclass(frozen=True)
class Layout:
    """One table.

    Attributes:
        stem: the stem of its files.
        number: its number in the paper; with a letter if the paper has no such table.
        title: what it compares; the caption opens with it.
        stage: the stage whose measurements it shows.
        family: the measurements' family; None if the table has several.
        columns: its metrics, in the paper's order.
        explanation: sentences of the caption on what the numbers are.
        n_labels: what `n` and `n_reference` count.
        attributes: headers of the columns before the metrics, see `ModelEntry`.
        transposed: metrics are rows and models are columns.
        real_rows: the rows of real data alone.
        floor: the metric of the row that compares real images with real images; None for no row.
        positives: whether a foot row counts the positive test images per finding.
        models: whether the models have rows.
        varies: a setting; only models that differ from another model in it alone have rows.
        none_measured: the reason if no model has a measurement; models without one have no row.
        printed: the stem of the paper's table whose values are shown, if it differs.
        row_header: the header of the rows' names, if the table is not transposed.
        page: its page of the report.
        section: its section of Snakemake's own report.
    """

    stem: str
    number: str
    title: str
    stage: str
    family: str | None
    columns: tuple[Column, ...]
    explanation: str
    n_labels: tuple[str, str]
    attributes: tuple[str, ...] = ()
    transposed: bool = False
    real_rows: tuple[RealRow, ...] = ()
    models: bool = True
    varies: str | None = None
    none_measured: str | None = None
    printed: str | None = None
    floor: str | None = None
    positives: bool = False
    row_header: str = "Model"
    page: str = "overview"
    section: str = "Other tables"

    @property
    def heading(self) -> str:
        """The title as the caption's first sentence."""
        return self.title if self.title.endswith("?") else f"{self.title}."

    @property
    def has_gains(self) -> bool:
        """Whether it is a table of gains."""
        return any(column.is_gain for column in self.columns)


def read_specs(
    folder: Traversable | Path, phrases: dict[str, str], further: Iterable[Path] = ()
) -> dict[str, Layout]:
    """Read the specs of a folder, by stem, in the paper's order.

    Args:
        folder: a folder of YAML files.
        phrases: sentences that explanations may refer to, by name.
        further: YAML files in other folders.

    Raises:
        ValueError: an invalid spec; the message names the file and the fault.
    """
    layouts = {}
    in_folder = [path for path in folder.iterdir() if path.name.endswith(".yaml")]
    paths = sorted([*in_folder, *further], key=lambda path: path.name)
    for path in paths:
        stem = path.name.removesuffix(".yaml")
        try:
            layouts[stem] = layout_of(stem, _yaml(path), phrases)
        except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError) as error:
            raise ValueError(f"specs/{path.name}: {error}") from error
    return layouts


def layout_of(stem: str, spec: dict[str, Any], phrases: dict[str, str]) -> Layout:
    """Return the layout that a spec describes.

    Raises:
        ValueError: an unknown field, or a column of no declared metric that lacks a header.
        KeyError: an unknown phrase.
    """
    spec = dict(spec)
    entries = spec.pop("columns")
    columns = tuple(column for entry in entries for column in _columns(entry))
    first = METRICS.get(columns[0].metric)
    counts = spec.pop("counts", first.counts if first else None)
    if counts is None:
        raise ValueError("no stage declares its first column: `counts` must say what n counts")
    texts = spec.pop("explanation")
    texts = [texts] if isinstance(texts, str) else texts
    explanation = " ".join(x if isinstance(x, str) else phrases[x["phrase"]] for x in texts)
    real_rows = tuple(RealRow(**row) for row in spec.pop("real_rows", ()))
    unknown = sorted(set(spec) - {field.name for field in fields(Layout)})
    if unknown:
        raise ValueError(f"unknown field(s): {', '.join(unknown)}")
    return Layout(
        stem=stem,
        columns=columns,
        explanation=explanation,
        n_labels=(counts[0], counts[1]),
        real_rows=real_rows,
        family=spec.pop("family", None),
        attributes=tuple(spec.pop("attributes", ())),
        **spec,
    )


def _columns(entry: str | dict[str, Any]) -> Iterator[Column]:
    """Yield the columns that one entry of a spec stands for."""
    given = {"metric": entry} if isinstance(entry, str) else dict(entry)
    headers = given.pop("per_finding", None)
    if "rank_of" in given:
        given = {"metric": f"{given['rank_of']}_rank", "decimals": 0, **given}
    declared = METRICS.get(given["metric"])
    if declared is not None:
        given = {
            "header": declared.header,
            "direction": declared.direction,
            "decimals": declared.decimals,
            **given,
        }
    elif "header" not in given:
        raise ValueError(f"no stage declares {given['metric']!r}, and it has no header")
    given = {"direction": "none", "decimals": None, **given}
    if headers is None:
        yield Column(**given)
    else:
        for header, finding in zip(headers, FINDINGS, strict=True):
            yield Column(**given | {"header": header, "subset": finding})


def _yaml(path: Traversable | Path) -> Any:
    # The loader in C, ten times as fast, is part of every wheel of PyYAML.
    return yaml.load(
        path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    )


def read_yaml(name: str) -> Any:
    """Return what a file of this folder's words holds; the caller names it in full."""
    return _yaml(_HERE / name)


_HERE: Final = files("workflow_scripts.tables")
PHRASES: Final[dict[str, str]] = read_yaml("phrases.yaml")
LAYOUTS: Final = read_specs(
    _HERE / "specs",
    PHRASES,
    (part.folder / name for part in every_part() for name in part.tables),
)
"""Every table, by stem, from `specs/` and from the folders of privacy scores and tasks."""
