"""A run of the benchmark as its tables see it: models, their records, and the data."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.measurement import Measurements, measurements_of
from workflow_scripts.common.records import Record
from workflow_scripts.tables.cohort_counts import SplitCounts, count_cohort, read_attrition
from workflow_scripts.tables.models import STAGES, ModelEntry, parse_models
from workflow_scripts.tables.published import PAPER_DATASET
from workflow_scripts.tables.records_in import Records, read_records


@dataclass(frozen=True)
class Run:
    """The inputs of all tables.

    Attributes:
        records: the records of all stages.
        models: the models and controls, in the order of the tables' rows.
        dataset: the data's name.
        cohort: counts by split.
        images_removed: number of images that the cohort left out.
    """

    records: Records
    models: Sequence[ModelEntry]
    dataset: str
    cohort: dict[str, SplitCounts] = field(default_factory=dict)
    images_removed: int = 0

    @cached_property
    def measurements(self) -> Measurements:
        """The records' values as one long table."""
        rows = (row for record in self.ordered() for row in measurements_of(record))
        return Measurements(rows, self.protocol)

    def ordered(self) -> list[Record]:
        """Return the records by stage and family, the models in the tables' order.

        Real data alone comes first. In whichever order their files are named, it is the same.
        """
        place = {model.key: i for i, model in enumerate(self.models)}
        return sorted(
            self.records.all(),
            key=lambda r: (STAGES.index(r.stage), r.family, place.get(r.model, -1), r.protocol),
        )

    @property
    def protocol(self) -> str:
        """The protocol of the records."""
        return self.records.protocol

    @property
    def competing(self) -> list[ModelEntry]:
        """The models without the controls."""
        return [model for model in self.models if not model.is_control]

    @property
    def of_the_paper(self) -> bool:
        """Whether the data are the paper's, so that its numbers may stand beside these."""
        return self.dataset == PAPER_DATASET


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags from which `read_run` reads."""
    for stage in STAGES:
        parser.add_argument(
            f"--{stage}", nargs="*", default=[], metavar="JSON", help=f"{stage} records"
        )
    parser.add_argument("--models", required=True, help="JSON list of models, in table order")
    parser.add_argument("--dataset", required=True, help="name of the data")
    parser.add_argument("--protocol", required=True, choices=PROTOCOLS)
    parser.add_argument("--manifest", required=True, help="manifest of the cohort (Parquet)")
    parser.add_argument("--attrition", required=True, help="attrition table of the cohort (CSV)")


def read_run(args: argparse.Namespace) -> Run:
    """Read what the flags of `add_arguments` name.

    Raises:
        InputError: see `parse_models`, `read_records`, `count_cohort` and `read_attrition`.
    """
    models = parse_models(args.models)
    return Run(
        read_records({stage: getattr(args, stage) for stage in STAGES}, models, args.protocol),
        models,
        args.dataset,
        count_cohort(args.manifest),
        read_attrition(args.attrition, args.dataset).images_removed,
    )
