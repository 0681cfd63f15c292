"""What a user's own images of a prompt set hold: what their import follows from."""

from collections.abc import Mapping
from pathlib import Path

from workflow_scripts.common.contents import Contents, digest_of
from workflow_scripts.common.errors import InputError
from workflow_scripts.generate.import_external import read_metadata


def external_contents(
    external: Mapping[str, str], prompt_set: str, contents: Contents
) -> list[str]:
    """Return one digest of a prompt set's images and of which prompt each answers.

    The order of the rows, and rows and images of other prompt sets, count nothing. Where images are
    gone or the table is refused, that is what they last held: preflight and the job say so.

    Args:
        external: the block `external` of a model: `images`, a folder, and `metadata`, a table.
        prompt_set: its name, with which the ids of its prompts begin.
        contents: where digests are kept.
    """

    def tell() -> list[str]:
        try:
            rows = read_metadata(Path(external["metadata"]))
        except InputError as error:
            raise OSError(str(error)) from None
        own = rows[rows["prompt_id"].str.startswith(f"{prompt_set}-")]
        own = own.sort_values(["prompt_id", "file_name"])
        digests = contents.digests(Path(external["images"], name) for name in own["file_name"])
        pairs = zip(own["prompt_id"], digests, strict=True)
        return [f"{len(own)} images {digest_of([f'{i} {d}' for i, d in pairs])}"]

    where = f"{external['images']}, {external['metadata']}"
    return contents.last(f"{prompt_set} images of {where}", tell)
