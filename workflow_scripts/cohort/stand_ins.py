"""What a download leaves in place of a file: a page, a pointer or a refusal.

A site that wants a log-in answers with a web page, git without its extension for large files leaves
a pointer, and a hub refuses a gated file with a sentence. All are saved under the file's name.
"""

from typing import Final

_LFS_MARK: Final = b"version https://git-lfs"
_PAGE_MARKS: Final = (b"<!doctype html", b"<html", b"<head", b"<?xml")
_REFUSALS: Final = (
    *(b"access to model", b"access to dataset", b"access to this", b"invalid username"),
    *(b"invalid credentials", b"repository not found", b"entry not found", b'{"error"'),
)


def stand_in(head: bytes) -> tuple[str, str] | None:
    """Return what stands in place of a file, and the remedy; None if nothing does.

    Args:
        head: the first bytes of the file, some hundred.
    """
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith(_PAGE_MARKS):
        return (
            "a web page stands in place of the file: often one that asks to log in",
            "log in, accept the terms of access, and download the file itself",
        )
    if start.startswith(_LFS_MARK):
        return "a Git LFS pointer stands in place of the file", "run `git lfs pull`"
    if start.startswith(_REFUSALS):
        said = start[:60].decode("utf-8", "replace").splitlines()[0]
        return (
            f"a refusal stands in place of the file ({said} ...)",
            "ask for access where it is published, log in, and download the file itself",
        )
    return None
