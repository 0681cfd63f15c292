"""Finished parts of a long step, from which the next job continues after a job was killed.

The parts lie in the job's progress folder (`common/attempts.py`), readable by their owner alone. A
part's name has a digest of everything that it depends on. So a job does not use parts of other
images, networks or settings.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from workflow_scripts.common.attempts import Attempt
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.resuming import read_unless_damaged

log = logging.getLogger(__name__)


class Kept:
    """The finished parts of one step.

    Args:
        progress: the job's progress folder.
        made_from: everything that the parts depend on, as JSON types.
    """

    def __init__(self, progress: Path, made_from: Mapping[str, Any]) -> None:
        content = json.dumps(made_from, sort_keys=True).encode()
        self._digest = hashlib.sha256(content).hexdigest()[:16]
        self._attempt = Attempt(progress)
        self._attempt.inherit()
        if finished := len([*self._attempt.folder.glob(f"[!.]*-{self._digest}")]):
            log.info("continuing: an earlier attempt finished %d part(s)", finished)

    def has(self, name: str) -> bool:
        """Return whether a part is finished."""
        return self._path(name).is_file()

    def columns(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> pa.Table:
        """Return a part that is a table. It is computed and stored unless it is finished.

        Raises:
            InputError: another attempt has taken over.
        """
        finished: pa.Table | None = self._read(name, pq.read_table)
        if finished is not None:
            return finished
        table = pa.table({key: pa.array(values) for key, values in compute().items()})
        with self._attempt.writing(), self._whole(name) as temporary:
            pq.write_table(table, temporary)
        return pq.read_table(self._path(name))

    def array(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """Return a part that is an array. It is computed and stored unless it is finished.

        Raises:
            InputError: another attempt has taken over.
        """
        finished: np.ndarray | None = self._read(name, partial(np.load, allow_pickle=False))
        if finished is not None:
            return finished
        content = compute()
        with (
            self._attempt.writing(),
            self._whole(name) as temporary,
            temporary.open("wb") as stream,
        ):
            np.save(stream, content)
        return content

    def _read(self, name: str, read: Callable[[Path], Any]) -> Any:
        """Return a finished part; None if it is not there, or damaged."""
        path = self._path(name)
        return read_unless_damaged(path, lambda: read(path)) if path.is_file() else None

    def end(self) -> None:
        """Remove all parts; call it once the step's result is written."""
        self._attempt.end()

    def _path(self, name: str) -> Path:
        return self._attempt.folder / f"{name}-{self._digest}"

    def _whole(self, name: str) -> Any:
        return whole_file(self._path(name), make_parents=False, owner_only=True)
