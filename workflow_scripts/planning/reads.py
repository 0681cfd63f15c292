"""Digests of the files that jobs read and no job makes: weights, tables, a user's images.

They are parameters of jobs, so a job reruns when the content changes. A touched, copied or renamed
file reruns nothing. Nothing here needs Snakemake.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from workflow_scripts.cohort.parts import part_digests
from workflow_scripts.cohort.refresh import CHANGED, changed_radiographs
from workflow_scripts.common.contents import Contents, files_of
from workflow_scripts.common.levels import said_of_bits
from workflow_scripts.finetune.base_contents import base_contents
from workflow_scripts.generate.external_contents import external_contents
from workflow_scripts.planning.cohort import cohort_tables, cohort_words, folder_and_part
from workflow_scripts.planning.run import Run

MANY_FILES = 50
"""A folder with this many files or more gets one digest for all of them."""


class Reads:
    """The digests, each computed once.

    Args:
        run: the run.
        versions: the versions of the stages.
        folder: the folder of known digests: the next plan need not read the files again.
    """

    def __init__(self, run: Run, versions: Mapping[str, int], folder: Path) -> None:
        self._run, self._versions = run, versions
        self._contents = Contents(folder / "contents.json")
        self._images = Contents(folder / "images.json")
        # Cached by instance: Snakemake asks for the parameters of a job many times.
        self.weights = cache(self._weights)
        self.base = cache(self._base)
        self.external_images = cache(self._external_images)
        self.radiographs = cache(self._radiographs)
        self._parts = cache(self._read_parts)

    def cohort(self, captions: str) -> Any:
        """Return the digests of the source's tables, or of the rows that a part takes from them.

        Args:
            captions: the folder below results/cohort that a job writes.
        """
        folder, part = folder_and_part(captions)
        if part:
            return self._parts(folder)[part]
        return self._contents.digests(cohort_tables(self._run.config))

    def _read_parts(self, folder: str) -> Any:
        config = self._run.config
        flags, tables = cohort_words(config, folder), cohort_tables(config)
        return part_digests(flags, tables, self._versions["cohort"], self._contents)

    def _weights(self, path: str) -> list[str]:
        """Return `file digest` of a file of weights, or of the files of a folder."""

        def tell() -> list[str]:
            files = files_of(path)
            digests = self._contents.digests(files)
            return digests if len(files) < MANY_FILES else [self._contents.condensed(files)]

        return self._contents.last(path, tell)

    def _base(self, model: str) -> Any:
        """Return `file digest` for each file of a model's base that is loaded."""
        return base_contents(self._run.block(model), self._contents)

    def sampled_base(self, model: str) -> Any:
        """Return the digests of the base that a model is sampled from.

        A checkpoint that was trained in full has none.
        """
        tuned = self._run.block(model).get("finetune")
        return [] if tuned and tuned["method"] == "full" else self.base(model)

    def presumed_base(self, model: str) -> Any:
        """Return the digests of a base whose losses are attacked without fine-tuning, else none.

        A fine-tuned checkpoint is an input of the job, and follows from its base.
        """
        return self.base(model) if model in self._run.presumed else []

    def _external_images(self, model: str, prompt_set: str) -> list[str]:
        """Return the digests of a user's own images of a prompt set."""
        external = self._run.block(model)["external"]
        return external_contents(external, prompt_set, self._images) + self.bits()

    def encoders(self, names: Sequence[str]) -> list[str]:
        """Return the digests of encoders' published weights; trained ones are inputs of jobs."""
        trained = ("reid",) if self._run.trains_reid() else ()
        blocks = self._run.config["encoders"]
        return [
            f"{name} {file}"
            for name in names
            if name not in trained
            for file in self.weights(blocks[name]["weights"])
        ]

    def reid_start(self) -> list[str]:
        """Return the digests of the weights that the training of re-identification starts from."""
        return self.weights(self._run.config["encoders"]["reid"]["weights"])

    def classifier_start(self) -> list[str]:
        """Return the digests of the weights that classifiers start from."""
        return self.weights(self._run.config["downstream"]["classification"]["weights"])

    def labeller(self) -> list[str]:
        """Return the digests of the pseudo-labeller's weights."""
        return self.weights(self._run.config["downstream"]["segmentation"]["labeller"]["weights"])

    def exact_masks(self) -> list[str]:
        """Return the digests of the masks drawn by hand; none if the config names no folder."""
        folder = self._run.config["downstream"]["segmentation"]["exact_masks"]
        return self.weights(folder) if folder else []

    def looking(self) -> list[str]:
        """Return the digests of the published networks that measure images."""
        names = [name for name in self._run.judges if name == "densenet_121"]
        return self.labeller() + self.encoders(names)

    def exact_organs(self) -> list[str]:
        """Return the digests of the exact organ masks; none if the config names none."""
        folder = self._run.config["faithfulness"]["exact_organs"]
        return self.weights(folder) if folder else []

    def overfitted(self) -> list[str]:
        """Return the digests of an overfitted model's images; none if the config names none."""
        folder = self._run.config["curate"].get("overfitted")
        return self.weights(folder) if folder else []

    def reporter_start(self, setting: str) -> list[str]:
        """Return the digests of the networks that a report generator starts from or consists of.

        The protocol decides which of the two `synthetic_only` continues.
        """
        start = self._run.config["downstream"]["report_generation"]["start"]
        by_setting = {"released": ["released"], "synthetic_only": ["base", "released"]}
        folders = by_setting.get(setting, ["base"])
        return [file for name in folders for file in self.weights(f"{start}/{name}")]

    def round_trip(self) -> list[str]:
        """Return the digests of LLaVA-Rad and CheXbert, if they report on generated images."""
        if not self._run.reads_reports:
            return []
        return self.reporter_start("released") + self.scorer("chexbert")

    def scorer(self, name: str) -> list[str]:
        """Return the digests of a report scorer's files; none if the config names none."""
        files = self._run.scorer_files(name)
        return [f"{key} {file}" for key in sorted(files) for file in self.weights(files[key])]

    def bits(self) -> list[str]:
        """Return the number of bits that 16-bit images use; empty if the config gives none."""
        return [f"{name} {value}" for name, value in said_of_bits().items()]

    def _radiographs(self, *splits: str) -> list[str]:
        """Return the splits with radiographs replaced after the first reading, and the bits.

        See `make refresh`. The list is empty if no radiograph was replaced and the config does not
        state the bits. No plan reads the radiographs themselves.

        Raises:
            InputError: the list of replaced radiographs is unreadable.
        """
        return changed_radiographs(CHANGED, splits) + self.bits()
