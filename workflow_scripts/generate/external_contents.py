"""Digests of a user's own images, on which their import depends."""

from collections.abc import Mapping
from pathlib import Path

from workflow_scripts.common.contents import Contents, digest_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.generate.import_external import read_metadata


def external_contents(
    external: Mapping[str, str], prompt_set: str, contents: Contents
) -> list[str]:
    """Return one digest of a prompt set's images and of the prompt that each image answers.

    It does not depend on the order of the rows, nor on rows and images of other prompt sets. If
    images are missing or the table is invalid, the last known digest is returned. Preflight and the
    import job report the fault.

    Args:
        external: the block `external` of a model: `images`, a folder, and `metadata`, a table.
        prompt_set: its name, which is the prefix of its prompts' ids.
        contents: the cache of digests.
    """

    def digest() -> list[str]:
        try:
            rows = read_metadata(Path(external["metadata"]))
        except InputError as error:
            raise OSError(str(error)) from None
        rows = rows[rows["prompt_id"].str.startswith(f"{prompt_set}-")]
        rows = rows.sort_values(["prompt_id", "file_name"])
        digests = contents.digests(Path(external["images"], name) for name in rows["file_name"])
        pairs = zip(rows["prompt_id"], digests, strict=True)
        return [f"{len(rows)} images {digest_of([f'{i} {d}' for i, d in pairs])}"]

    where = f"{external['images']}, {external['metadata']}"
    return contents.last(f"{prompt_set} images of {where}", digest)
