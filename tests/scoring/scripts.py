"""The scoring scripts as the workflow calls them, on the committed inputs.

Each script runs through its `main` with the flags of the rules: `rules/fidelity.smk`,
`rules/privacy.smk`, `rules/downstream.smk`, `rules/faithfulness.smk` and
`rules/faithfulness_stress.smk`. The flags' values are written by hand; only the draws are fewer
than `config.yaml` says, for speed.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
from pyarrow import csv

from tests.scoring.paths import INPUTS
from workflow_scripts.downstream.classification import score as classification
from workflow_scripts.downstream.report_generation import score as reports
from workflow_scripts.downstream.segmentation import score as segmentation
from workflow_scripts.downstream.segmentation import score_labeller
from workflow_scripts.faithfulness import score as faithfulness
from workflow_scripts.faithfulness import score_labeller as organs_labeller
from workflow_scripts.faithfulness import score_stress
from workflow_scripts.fidelity import score as fidelity
from workflow_scripts.privacy import (
    score,
    score_attacker,
    score_closest,
    score_guarantee,
    score_lenses,
    score_novelty,
)
from workflow_scripts.privacy.extraction import score as extraction
from workflow_scripts.privacy.membership import score as membership
from workflow_scripts.privacy.membership import score_samples

DRAWS: Final = 200
THREADS: Final = 1


@dataclass(frozen=True)
class Script:
    """One call of a scoring script.

    Attributes:
        main: Entry point of the script.
        flags: Its flags except those of the outputs. `{made}` stands for the folder with other
            scripts' outputs, `{out}` for its own; all other paths are relative to the inputs.
        output: Path of its record in the output folder.
        pairs: Path of its table of pairs in the output folder, if it writes one.
        others: Path of its table of pairs with other prompts' radiographs, if it writes one.
        scores: Path of its table of images' scores, if it writes one.
        folder: Folder in the output folder that it takes (`--out`) in place of `--output`, if it
            writes several records there.
        written: Paths of these records in that folder, `output` among them.
        threads: Whether the script takes `--threads`.
    """

    main: Callable[[list[str]], None]
    flags: str
    output: str
    pairs: str | None = None
    others: str | None = None
    scores: str | None = None
    folder: str | None = None
    written: tuple[str, ...] = ()
    threads: bool = False

    def run(self, made: Path, out: Path, threads: int = THREADS) -> dict[str, Any]:
        """Run the script and return the contents of its outputs, by path and as JSON types.

        Args:
            made: Folder with other scripts' outputs.
            out: Output folder.
            threads: Number of threads, for scripts that take it.
        """
        flags = {
            "--output": None if self.folder else self.output,
            "--pairs": self.pairs,
            "--others": self.others,
            "--scores": self.scores,
        }
        files = {flag: name for flag, name in flags.items() if name}
        words = [word.format(made=made, out=out) for word in self.flags.split()]
        for flag, name in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            words += [flag, str(out / name)]
        if self.folder:
            words += ["--out", str(out / self.folder)]
        if self.threads:
            words += ["--threads", str(threads)]
        with contextlib.chdir(INPUTS):
            self.main(words)
        return {name: content(out / name) for name in (*files.values(), *self.written)}


def run_all(out: Path, threads: int = THREADS) -> dict[str, Any]:
    """Run every script, with an empty output folder; return all contents by path."""
    made: dict[str, Any] = {}
    for script in SCRIPTS.values():
        made |= script.run(out, out, threads)
    return made


def content(path: Path) -> Any:
    """Return a record without its provenance, or a table's columns by name, as JSON types."""
    if path.suffix == ".json":
        record = json.loads(path.read_text(encoding="utf-8"))
        del record["provenance"]  # it depends on the checkout, the date and the packages
        return record
    table = csv.read_csv(path) if path.suffix == ".csv" else pq.read_table(path)
    return {
        name: [
            None if isinstance(x, float) and not np.isfinite(x) else x
            for x in table[name].to_pylist()
        ]
        for name in table.column_names
    }


def _fidelity(model: str, protocol: str) -> Script:
    features = f"features/{protocol}"
    return Script(
        fidelity.main,
        f"--model {model} --encoder rad_dino --protocol {protocol} --manifest manifest.parquet"
        f" --prompts prompts/test.parquet --real {features}/real --generated {features}/{model}"
        f" --kid-bootstrap {DRAWS} --nearest-k 5 --seed 42 --gpus 0",
        f"fidelity/{protocol}/{model}.json",
        threads=True,
    )


def _of_model(model: str, protocol: str = "sound") -> str:
    features = f"features/{protocol}"
    return (
        f"--model {model} --protocol {protocol} --manifest manifest.parquet"
        f" --prompts prompts/privacy.parquet --real {features}/train"
        f" --generated {features}/{model}_privacy"
        f" --bootstrap {DRAWS} --seed 42 --threshold 0.85"
    )


def _privacy(model: str, protocol: str) -> Script:
    shards = " ".join(f"shards/{model}/part-0000{part}-of-00002.parquet" for part in range(2))
    stem = f"privacy/{protocol}/{model}"
    return Script(
        score.main,
        f"{_of_model(model, protocol)} --shards {shards}",
        f"{stem}.json",
        f"{stem}_pairs.parquet",
        f"{stem}_others.parquet" if protocol == "sound" else None,
        threads=True,
    )


def _closest(model: str) -> Script:
    return Script(
        score_closest.main,
        f"{_of_model(model)} --matches 5",
        f"privacy/closest/{model}.json",
        f"privacy/closest/{model}_pairs.parquet",
        threads=True,
    )


def _novelty(model: str) -> Script:
    return Script(
        score_novelty.main,
        f"{_of_model(model)} --held-out features/sound/held_out"
        f" --held-out-prompts prompts/test.parquet --answers features/sound/{model}",
        f"privacy/novelty/{model}.json",
        threads=True,
    )


def _membership(model: str) -> Script:
    return Script(
        score_samples.main,
        f"--model {model} --protocol sound --manifest manifest.parquet"
        f" --prompts prompts/privacy.parquet --real features/sound/train"
        f" --held-out features/sound/held_out --generated features/sound/{model}_privacy"
        f" --images 1000 --seed 42",
        f"privacy/membership/{model}.json",
    )


_ATTACKED: Final = (
    "--protocol sound --family stable_diffusion --base attacked/sd --size 32 --mixed-precision no"
)


def _losses(model: str, flags: str) -> Script:
    stem = f"privacy/losses/{model}"
    return Script(
        membership.main,
        f"--model {model} {_ATTACKED} {flags} --manifest attacked/manifest.parquet"
        f" --copies attacked/identical_images.csv attacked/similar_images.csv"
        f" --images 100 --noise-levels 3 --seeds 1 --batch-size 8 --seed 42"
        f" --progress {{out}}/{stem}.progress --scores {{out}}/{stem}.parquet",
        f"{stem}.json",
        threads=True,
    )


def _guarantee() -> Script:
    return Script(
        score_guarantee.main,
        f"--model tiny {_ATTACKED} --method lora --checkpoint attacked/lora"
        " --canaries attacked/canaries",
        "privacy/guarantee/tiny.json",
        threads=True,
    )


def _extraction() -> Script:
    return Script(
        extraction.main,
        "--protocol sound --manifest attacked/manifest.parquet"
        " --prompts tiny=attacked/prompts/privacy.parquet"
        " --images tiny=attacked/shards/part-00000-of-00001.parquet"
        " --rad-dino attacked/rad-dino --seen {out}/privacy/extraction/.seen"
        f" --false-alarms 0.1 --neighbours 10 --repeats 3 --bootstrap {DRAWS} --seed 42",
        "privacy/extraction/tiny.json",
        folder="privacy/extraction",
        written=("privacy/extraction/tiny.json",),
        threads=True,
    )


def _lenses(model: str) -> Script:
    stem = f"{{made}}/privacy/sound/{model}"
    return Script(
        score_lenses.main,
        f"--model {model} --protocol sound --manifest manifest.parquet"
        f" --pairs {stem}_pairs.parquet --others {stem}_others.parquet"
        f" --record {stem}.json --bootstrap {DRAWS} --seed 42",
        f"privacy/lenses/{model}.json",
    )


def _attacker(protocol: str) -> Script:
    return Script(
        score_attacker.main,
        f"--protocol {protocol} --manifest manifest.parquet --prompts prompts/privacy.parquet"
        f" --real features/{protocol}/held_out --threshold 0.85",
        f"privacy/attacker/{protocol}.json",
    )


_ARMS: Final = {
    "real_only": "real",
    "augmented": "tiny",
    "synthetic_only": "tiny",
    "released": "real",
}
"""The model of each setting."""


def _repeats(task: str, setting: str, count: int, stem: str = "repeat") -> str:
    folder = f"outcomes/{task}/{setting}/{_ARMS[setting]}"
    return " ".join(f"{folder}/{stem}-{k}.parquet" for k in range(count))


def _classification(setting: str, count: int) -> Script:
    baseline = f"--baseline {_repeats('classification', 'real_only', 2)}"
    return Script(
        classification.main,
        f"--outcomes {_repeats('classification', setting, count)}"
        f" {'' if setting == 'real_only' else baseline}"
        f" --manifest manifest.parquet --bootstrap {DRAWS} --seed 42",
        f"downstream/classification/{setting}.json",
    )


def _segmentation(setting: str) -> Script:
    baseline = f"--baseline {_repeats('segmentation', 'real_only', 2)}"
    return Script(
        segmentation.main,
        f"--outcomes {_repeats('segmentation', setting, 2)}"
        f" {'' if setting == 'real_only' else baseline} --bootstrap {DRAWS} --seed 42",
        f"downstream/segmentation/{setting}.json",
    )


def _labeller(name: str, by_hand: str) -> Script:
    return Script(
        score_labeller.main,
        f"--masks masks.parquet --manifest manifest.parquet {by_hand} --size 24 --protocol sound"
        f" --bootstrap {DRAWS} --seed 42",
        f"downstream/segmentation/{name}.json",
        threads=True,
    )


_REPORT_RUNS: Final = {"released": 1, "real_only": 2, "augmented": 2, "synthetic_only": 1}
"""Training runs of each setting's arm."""


def _reports(setting: str) -> Script:
    # The reports have no GREEN scores, as where the config names no weights of it.
    against = {"augmented": "real_only", "synthetic_only": "released"}.get(setting)
    arms = [setting] if against is None else [setting, against]
    scores = [
        _repeats("report_generation", arm, _REPORT_RUNS[arm], scorer)
        for arm in arms
        for scorer in ("chexbert", "radgraph", "ratescore")
    ]
    baseline = (
        ""
        if against is None
        else f"--baseline {_repeats('report_generation', against, _REPORT_RUNS[against])}"
    )
    return Script(
        reports.main,
        f"--outcomes {_repeats('report_generation', setting, _REPORT_RUNS[setting])} {baseline}"
        f" --scores {' '.join(scores)} --bootstrap {DRAWS} --seed 42",
        f"downstream/report_generation/{setting}.json",
    )


def _faithfulness(model: str) -> Script:
    folder = "faithfulness"
    seen = f"--prompts prompts/test.parquet --seen {folder}/seen/{model}.parquet"
    families = ("anatomy",)
    if model != "real":
        families = ("findings/classifier", "findings/densenet_121", "anatomy", "texture")
    written = tuple(f"{folder}/{family}/{model}.json" for family in families)
    if model != "real":
        written += (f"{folder}/structures/{model}.csv",)
    return Script(
        faithfulness.main,
        f"--model {model} --protocol sound --manifest manifest.parquet"
        f" --radiographs {folder}/seen/real.parquet {'' if model == 'real' else seen}"
        f" --judges classifier densenet_121 --bootstrap {DRAWS} --seed 42",
        written[0],
        folder=folder,
        written=written,
    )


def _stress(model: str) -> Script:
    folder = "faithfulness"
    return Script(
        score_stress.main,
        f"--model {model} --protocol sound --stress {folder}/stress.parquet"
        f" --manifest manifest.parquet --seen {folder}/stress_{model}.parquet"
        f" --real {folder}/stress_real.parquet --bootstrap {DRAWS} --seed 42",
        f"{folder}/stress/{model}.json",
        scores=f"{folder}/stress/{model}.parquet",
    )


def _organs_labeller(name: str, exact: str) -> Script:
    return Script(
        organs_labeller.main,
        f"--protocol sound --radiographs faithfulness/seen/real.parquet {exact}",
        f"faithfulness/labeller/{name}.json",
    )


def _by_output(scripts: Iterable[Script]) -> dict[str, Script]:
    return {script.output: script for script in scripts}


SCRIPTS: Final[Mapping[str, Script]] = _by_output(
    (
        _fidelity("tiny", "sound"),
        _fidelity("tiny", "as_published"),
        _fidelity("shown", "sound"),
        _privacy("tiny", "sound"),
        _privacy("tiny", "as_published"),
        _privacy("shown", "sound"),
        _closest("tiny"),
        _novelty("tiny"),
        _novelty("shown"),
        _membership("tiny"),
        _losses("tuned", "--method lora --checkpoint attacked/lora"),
        _losses("published", "--method full"),
        _guarantee(),
        _extraction(),
        _lenses("tiny"),
        _lenses("shown"),
        _attacker("sound"),
        _attacker("as_published"),
        _classification("real_only", 2),
        _classification("augmented", 3),
        _classification("synthetic_only", 1),
        _segmentation("real_only"),
        _segmentation("augmented"),
        _labeller("labeller", "--exact-masks by_hand"),
        _labeller("labeller_alone", ""),
        *(_reports(setting) for setting in _REPORT_RUNS),
        _faithfulness("tiny"),
        _faithfulness("real"),
        _stress("tiny"),
        _organs_labeller("real", "--exact-organs faithfulness/organs"),
        _organs_labeller("alone", ""),
    )
)
"""Every call by its output; a script stands behind those whose outputs it reads."""
