"""Write a curated set with its documents: its contents, the measurements, the terms of access.

    python -m workflow_scripts.curate.describe --decision results/curate/sana/decision.json \\
        --dataset results/curate/sana/dataset --family sana --base weights/sana-600m-512px \\
        --records results/fidelity/rad_dino/sana.json results/privacy/sana.json \\
        --searched-manifests results/cohort/manifest.parquet \\
        --searched-prompts results/cohort/prompts/*.parquet --output results/curate/sana/published

The folder holds everything that is handed on: `README.md` (dataset card), `croissant.json`,
`scorecard.{json,md}`, `datasheet.md`, `terms.{json,md}`, `decision.json`, `worth.json` and
`worth_segmentation.json` if they were measured, and the shards under `data/`. It is written whole
or not at all. The script first searches the documents for ids, captions and indications of the
cohort, as `make release` does. The same inputs give the same bytes. If the decision is not to
release, every page says so, and the folder serves those who decide.
"""

import argparse
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import link_or_copy, whole_folder
from workflow_scripts.common.version import version
from workflow_scripts.curate.card import card
from workflow_scripts.curate.croissant import croissant
from workflow_scripts.curate.datasheet import datasheet
from workflow_scripts.curate.described import Described, describe_set
from workflow_scripts.curate.scorecard import fill, scorecard_json, scorecard_page
from workflow_scripts.curate.search import check_texts, cohort_texts
from workflow_scripts.curate.set_files import set_sha256
from workflow_scripts.curate.terms import terms_json, terms_page
from workflow_scripts.curate.worth_text import SEGMENTED, WORTH, read_worth, worth_json

log = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--decision", required=True, help="decision.json of the set")
    parser.add_argument("--dataset", required=True, help="folder that holds data/*.parquet")
    parser.add_argument("--records", nargs="*", default=[], help="records of the model, JSON")
    parser.add_argument("--worth", help="record of classifiers trained on the set, worth.json")
    parser.add_argument(
        "--worth-segmentation", help="record of U-Nets trained on it, worth_segmentation.json"
    )
    parser.add_argument("--family", help="the model's family in the config")
    parser.add_argument("--base", help="the model's base checkpoint in the config")
    parser.add_argument(
        "--searched-manifests",
        nargs="*",
        default=[],
        type=Path,
        help="whose ids and captions the documents must not contain",
    )
    parser.add_argument("--searched-prompts", nargs="*", default=[], type=Path, help="likewise")
    parser.add_argument("--output", required=True, help="the folder to write")
    flags = parser.parse_args(arguments)
    output, dataset = Path(flags.output).resolve(), Path(flags.dataset).resolve()
    if output in (dataset, *dataset.parents):
        raise InputError(
            "the output would replace the shards that it is made from",
            flags.output,
            "name a folder beside them",
        )
    described = describe_set(
        flags.decision, flags.dataset, flags.records, flags.family, flags.base, version()
    )
    digest = set_sha256([shard.sha256 for shard in described.shards])
    if flags.worth:
        worth = read_worth(flags.worth, described.model, digest)
        described = replace(described, worth=worth)
    if flags.worth_segmentation:
        path = flags.worth_segmentation
        segmented = read_worth(path, described.model, digest, SEGMENTED)
        described = replace(described, segmented=segmented)
    texts = {**documents(described), "decision.json": json.dumps(described.decision)}
    if flags.searched_manifests:
        check_texts(texts.items(), *cohort_texts(flags.searched_manifests, flags.searched_prompts))
    write(described, flags.output, flags.decision)
    log.info("%d images, %s: %s", described.images, described.terms.access, Path(flags.output).name)


def write(described: Described, output: str | Path, decision: str | Path) -> None:
    """Write the folder, whole or not at all.

    Args:
        described: the set.
        output: the folder; an existing one is replaced.
        decision: `decision.json`, which is copied unchanged.
    """
    with whole_folder(output) as folder:
        for name, text in documents(described).items():
            (folder / name).write_text(text, encoding="utf-8")
        shutil.copyfile(decision, folder / "decision.json")
        for shard in described.shards:
            (folder / shard.name).parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(shard.path, folder / shard.name)


def documents(described: Described) -> dict[str, str]:
    """Return the text of each document by its file name, without decision and shards."""
    entries = fill(described)
    return {
        "README.md": card(described),
        "croissant.json": _json(croissant(described)),
        "scorecard.json": _json(scorecard_json(entries)),
        "scorecard.md": scorecard_page(entries, described.name),
        "datasheet.md": datasheet(described),
        "terms.json": _json(terms_json(described.terms)),
        "terms.md": terms_page(described.terms),
        **{
            f"{name}.json": _json(worth_json(record))
            for name, record in ((WORTH, described.worth), (SEGMENTED, described.segmented))
            if record is not None
        },
    }


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


if __name__ == "__main__":
    run_script(main)
