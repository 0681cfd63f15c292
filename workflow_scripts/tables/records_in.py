"""The records that the tables join: read, checked, and found by stage, family and model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError
from workflow_scripts.common.records import Record, read_record
from workflow_scripts.tables.layout import LAYOUTS
from workflow_scripts.tables.models import ModelEntry

REAL: Final = "real"
"""The model key of records of real data alone."""


BOTH_PROTOCOLS: Final = (("privacy", "pairwise"), ("privacy", "attacker"))
"""Stage and family of the records that tables show under both protocols."""


class Records:
    """The records by stage, family, model and protocol.

    Args:
        protocol: the tables' protocol; records of the other one are found only on request.
    """

    def __init__(self, protocol: str = PROTOCOLS[0]) -> None:
        self.protocol = protocol
        self._by_place: dict[tuple[str, str | None, str, str], Record] = {}

    def add(self, record: Record) -> None:
        """Add a record.

        Raises:
            InputError: there is such a record already.
        """
        place = (record.stage, record.family, record.model, record.protocol)
        if place in self._by_place:
            raise InputError(
                f"two {record.stage} records ({record.family}) of model {record.model!r}"
            )
        self._by_place[place] = record

    def find(
        self, stage: str, family: str | None, model: str, protocol: str | None = None
    ) -> Record | None:
        """Return a record, by default of the tables' protocol; None if there is none."""
        return self._by_place.get((stage, family, model, protocol or self.protocol))

    def all(self) -> list[Record]:
        """Return the records in the order they were added."""
        return list(self._by_place.values())


def read_records(
    paths: dict[str, Sequence[str | Path]], models: Iterable[ModelEntry], protocol: str
) -> Records:
    """Read the records of each stage and check that they belong together.

    Args:
        paths: files per stage.
        models: the models of the tables.
        protocol: the protocol of all records except those of `BOTH_PROTOCOLS`.

    Raises:
        InputError: a record of another stage, an unknown family or model, another protocol, or
            two records of one model.
    """
    keys = {model.key for model in models}
    real = {(x.stage, row.family) for x in LAYOUTS.values() for row in x.real_rows}
    families = {
        *real,
        *((layout.stage, layout.family) for layout in LAYOUTS.values() if layout.family),
        *(
            (layout.stage, c.family)
            for layout in LAYOUTS.values()
            for c in layout.columns
            if c.family
        ),
    }
    records = Records(protocol)
    for stage, files in paths.items():
        for path in files:
            record = read_record(path)
            if record.stage != stage:
                raise InputError(f"a {record.stage} record, given as --{stage}", path)
            if (stage, record.family) not in families:
                known = sorted(f for stage_of_f, f in families if stage_of_f == stage)
                raise InputError(f"no table shows {record.family!r}", path, f"known are {known}")
            of_real = record.model == REAL and (stage, record.family) in real
            if record.model not in keys and not of_real:
                raise InputError(
                    f"a record of model {record.model!r}, which is not among the tables' models",
                    path,
                    "add the model to `run_models`, or leave its record out",
                )
            both = (stage, record.family) in BOTH_PROTOCOLS
            if record.protocol != protocol and not both:
                raise InputError(
                    f"a record of protocol {record.protocol!r} for tables of {protocol!r}",
                    path,
                    "rerun the stage under one protocol",
                )
            records.add(record)
    require_same_encoders(records.all())
    return records


def require_same_encoders(records: Sequence[Record]) -> None:
    """Refuse records with different encoders or references: one table cannot compare them.

    An encoder must have the same weights in all records. Records of one kind and protocol must also
    agree in its preprocessing and, for fidelity, in the reference radiographs.

    Raises:
        InputError: two records differ; the message names them, the encoder and the difference.
    """
    first: dict[tuple[str, ...], tuple[Any, Record]] = {}
    for record in records:
        kind = (record.stage, record.family, record.protocol)
        for read in record.provenance.get("inputs", ()):
            encoder = str(read["encoder"])
            properties: dict[tuple[str, ...], Any] = {
                ("weights_sha256", encoder): read["weights_sha256"],
                ("preprocessing", encoder, *kind): read["preprocessing"],
            }
            if record.stage == "fidelity" and read["collection"] == REAL:
                properties["collection_sha256", encoder, *kind] = read["collection_sha256"]
            for place, value in properties.items():
                known, other = first.setdefault(place, (value, record))
                if known != value:
                    raise InputError(
                        f"records that rest on another {place[0]} of {encoder} stand in no table "
                        f"together: {known!r} and {value!r}",
                        f"{_named(other)} and {_named(record)}",
                        "rerun the features stage of both with the same weights and images",
                    )


def _named(record: Record) -> str:
    return f"{record.stage}/{record.family} of {record.model}"
