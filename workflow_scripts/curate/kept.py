"""Finished parts of a long step: a job that was killed leaves them, and the next one goes on.

They lie in the job's progress folder (`common/attempts.py`), readable for their owner alone. What a
part follows from is in its name: parts of other images, networks or settings are left alone.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.files import whole_file

log = logging.getLogger(__name__)


class Kept:
    """The parts of one step.

    Args:
        progress: the job's folder of progress.
        made_from: all that the parts follow from, JSON types.
    """

    def __init__(self, progress: Path, made_from: Mapping[str, Any]) -> None:
        said = json.dumps(made_from, sort_keys=True).encode()
        self._digest = hashlib.sha256(said).hexdigest()[:16]
        self._attempt = Attempt(progress)
        self._attempt.inherit()
        found = len([*self._attempt.folder.glob(f"[!.]*-{self._digest}")])
        if found:
            log.info("continuing: %d part(s) are there from before", found)

    def has(self, name: str) -> bool:
        """Return whether a part is there."""
        return self._path(name).is_file()

    def columns(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> pa.Table:
        """Return a part that is a table; what is not there is computed, and kept.

        Raises:
            InputError: another attempt has taken over.
        """
        if not self.has(name):
            table = pa.table({key: pa.array(values) for key, values in compute().items()})
            with self._attempt.writing(), self._whole(name) as temporary:
                pq.write_table(table, temporary)
        return pq.read_table(self._path(name))

    def array(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a part that is an array; what is not there is computed, and kept.

        Raises:
            InputError: another attempt has taken over.
        """
        if not self.has(name):
            content = compute()
            with (
                self._attempt.writing(),
                self._whole(name) as temporary,
                temporary.open("wb") as stream,
            ):
                np.save(stream, content)
        return np.asarray(np.load(self._path(name), allow_pickle=False))

    def end(self) -> None:
        """Remove the parts, once what they are for is written."""
        self._attempt.end()

    def _path(self, name: str) -> Path:
        return self._attempt.folder / f"{name}-{self._digest}"

    def _whole(self, name: str) -> Any:
        return whole_file(self._path(name), make_parents=False, owner_only=True)
