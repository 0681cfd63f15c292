"""Pack what may be published: tables, figures, a report without images, records, config, lock.

python -m workflow_scripts.tables.release --dataset MIMIC-CXR --tables results/tables/table*.csv
    --figures results/tables/figure01_workflow.svg results/tables/figure01_workflow.pdf
    --records results/fidelity/*/*.json results/privacy/*.json
    --report results/tables/report_public.html --config "$(cat resolved.json)"
    --lock envs/core.lock.txt --citation CITATION.cff --manifest results/cohort/manifest.parquet
    --prompts results/cohort/prompts/*.parquet --output results/tables/release.tar.gz

The bundle leaves out everything that shows or names patients: radiographs, generated images (a
model may have memorised one), captions, indications, ids, features, tables of pairs. All its files
are searched for these first, and a bundle that holds any is not written. Names of machines
(absolute paths, nodes) are removed. The same inputs give the same bytes.
"""

import argparse
import base64
import binascii
import gzip
import hashlib
import html
import io
import json
import logging
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from workflow_scripts.common.access import unreadable
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file
from workflow_scripts.common.leak_search import folded_readings, ids_in, passages_in
from workflow_scripts.common.manifest import read_manifest, read_prompts
from workflow_scripts.common.records import read_record

log = logging.getLogger(__name__)

FOLDER: Final = "chexgenbench-release"
_LEFT_OUT: Final = (
    "radiographs, generated images, captions, indications, ids of patients and images, features, "
    "tables of pairs, checkpoints"
)
_EMBEDDED: Final = re.compile(r"data:([\w.+/-]*)(?:;[\w=.-]+)*;base64,([A-Za-z0-9+/=\s]+)")
_IMAGES: Final = re.compile(r"data:image/|<image\b|<img\b", re.IGNORECASE)
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/]{200,}={0,2}")
_MAGIC: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM")
"""The first bytes of image files."""

_PDF: Final = b"%PDF-"
_STREAM: Final = re.compile(rb"/FlateDecode[^<>]*>>\s*stream\r?\n(.*?)\nendstream", re.DOTALL)
_OTHER_FILTER: Final = re.compile(rb"/Filter(?!\s*/FlateDecode)")
_IN_PDF: Final = re.compile(rb"/Subtype\s*/Image|/DCTDecode|/JPXDecode|/CCITTFaxDecode|\bBI\s+/")
_SITE: Final = re.compile(
    r"""(?<![\w.~$}/\\-])             # where a path begins
    (?: file:/+ | (?<!:)/(?!/) | (?<=:)/(?!/)
      | ~[\w.-]*(?=[/\\]|$) | ~[\w.-]+ | \$\{?\w+\}?(?=[/\\])
      | [A-Za-z]:[/\\](?!/) | \\\\ | (?:\.\.[/\\])+ )
    [^\s,;:"'|<>]*""",
    re.VERBOSE,
)
_HOMES: Final = (["home"], ["Users"], ["users"])
_LINES: Final = re.compile(r"<!-- (.*?) -->", re.DOTALL)


def texts_in(name: str, data: bytes) -> Iterator[tuple[str, str]]:
    """Yield every text of a file: the file itself, and the texts embedded in it.

    A PDF gives no text, because its letters are stored as numbers of glyphs. The SVG of the same
    figure has its text; a PDF without this SVG is not packed.

    Raises:
        InputError: a file or an embedded part is not text, or shows an image.
    """
    if data.startswith(_PDF):
        _refuse_images(name, data)
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError("only text is published", name, "leave the file out") from None
    if "\0" in text:
        raise InputError("only text is published", name, "leave the file out")
    if match := _IMAGES.search(text):
        raise InputError(
            f"an image is embedded: {text[match.start() : match.start() + 40]!r}",
            name,
            "only files without images are published",
        )
    rest = _EMBEDDED.sub(" ", text)
    for match in _ENCODED.finditer(rest):
        start = base64.b64decode(match[0][: len(match[0]) // 4 * 4])
        if start.startswith(_MAGIC):
            raise InputError(
                f"an image is encoded: {match[0][:24]!r}...",
                name,
                "only files without images are published",
            )
    yield name, rest
    if "<svg" in text:
        # Letters are outlines; a comment has the text of each line. A passage may span lines.
        yield name, " ".join(html.unescape(line) for line in _LINES.findall(text))
    for number, match in enumerate(_EMBEDDED.finditer(text)):
        try:
            carried = base64.b64decode(match[2], validate=False)
        except binascii.Error:
            raise InputError(f"embedded part {number} cannot be decoded", name) from None
        yield from texts_in(f"{name}, embedded part {number} ({match[1]})", carried)


def _refuse_images(name: str, data: bytes) -> None:
    """Refuse a PDF that shows an image.

    Raises:
        InputError: the PDF shows an image, or a part of it cannot be read.
    """
    parts = [data]
    for match in _STREAM.finditer(data):
        try:
            parts.append(zlib.decompressobj().decompress(match[1]))
        except zlib.error:
            raise InputError("a part of a PDF cannot be read", name, "leave it out") from None
    if _OTHER_FILTER.search(data) or any(_IN_PDF.search(part) for part in parts):
        raise InputError("a PDF shows an image", name, "only files without images are published")


def check(members: dict[str, bytes], ids: set[str], passages: Sequence[str]) -> None:
    """Check that a bundle shows no image and holds no caption, no indication and no id.

    Raises:
        InputError: the bundle has one of these; the message names the places and quotes nothing.
    """
    texts = folded_readings(text for name, data in members.items() for text in texts_in(name, data))
    leaks_by_kind = {
        "ids": ids_in(texts, ids),
        "captions or indications": passages_in(texts, passages),
    }
    for what, leaks in leaks_by_kind.items():
        if leaks:
            places = sorted({place for place, _ in leaks})
            raise InputError(
                f"{len(leaks)} {what} of the cohort would be published",
                ", ".join(places[:5]) + (", ..." if len(places) > 5 else ""),
                "nothing was written; this is a fault of the workflow: report it with the names "
                "of these files only",
            )


def without_site(config: Any) -> Any:
    """Return the config without paths that reveal a machine or a user; their last name stays.

    Such are absolute paths, paths that begin with a home folder, a variable, a drive or a share,
    and paths that lead out of the checkout, also within a longer text.
    """
    if isinstance(config, dict):
        return {key: without_site(value) for key, value in config.items()}
    if isinstance(config, list):
        return [without_site(value) for value in config]
    if isinstance(config, str):
        # A text that begins as a path is one, even with blanks in it.
        if _SITE.match(config):
            return _last_name(config)
        return _SITE.sub(lambda match: _last_name(match[0]), config)
    return config


def _last_name(path: str) -> str:
    parts = [part for part in re.split(r"[/\\]+", path) if part]
    # The name of a home folder is its user's.
    names_a_place = not parts or parts[-1].startswith(("~", "$", "..")) or parts[-2:-1] in _HOMES
    return "..." if names_a_place else f".../{parts[-1]}"


def without_nodes(content: Any) -> Any:
    """Return a record's content without the names of the nodes that made it."""
    if isinstance(content, dict):
        return {k: None if k == "slurm_node" else without_nodes(v) for k, v in content.items()}
    if isinstance(content, list):
        return [without_nodes(value) for value in content]
    return content


def pack(members: dict[str, bytes]) -> bytes:
    """Return a tar.gz of the members under `FOLDER`; the same members give the same bytes."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(f"{FOLDER}/{name}")
            entry.size, entry.mode = len(members[name]), 0o644
            archive.addfile(entry, io.BytesIO(members[name]))
    return gzip.compress(buffer.getvalue(), mtime=0)


def members_of(args: argparse.Namespace) -> dict[str, bytes]:
    """Read the files to pack, by their names in the bundle."""
    members: dict[str, bytes] = {"report.html": _read(args.report)}
    members |= {f"tables/{path.name}": _read(path) for path in args.tables}
    members |= figures_of(args.figures)
    for path in args.records:
        record = read_record(path)
        place = f"records/{record.protocol}/{record.stage}/{record.family}/{record.model}.json"
        if place in members:
            raise InputError(f"two records of {place.removesuffix('.json')}", path)
        content = without_nodes(json.loads(_read(path)))
        members[place] = (json.dumps(content, indent=1, sort_keys=True) + "\n").encode()
    config = without_site(json.loads(args.config))
    members["config.yaml"] = yaml.safe_dump(config, sort_keys=True, allow_unicode=True).encode()
    members[args.lock.name] = _read(args.lock)
    members[args.citation.name] = _read(args.citation)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())}
    about = {"dataset": args.dataset, "left_out": _LEFT_OUT, "sha256": digests}
    members["contents.json"] = (json.dumps(about, indent=1, sort_keys=True) + "\n").encode()
    return members


def figures_of(paths: Sequence[Path]) -> dict[str, bytes]:
    """Read the figures, by their name in the bundle.

    Raises:
        InputError: a PDF without the SVG of the same figure.
    """
    names = {path.name for path in paths}
    for path in paths:
        if path.suffix == ".pdf" and f"{path.stem}.svg" not in names:
            raise InputError(
                "a PDF is packed only beside the SVG of the same figure, whose text is searched",
                path,
            )
    return {f"figures/{path.name}": _read(path) for path in paths}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable("cannot read a file to pack", error, path) from None


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--dataset", required=True, help="name of the data")
    add("--tables", required=True, nargs="+", type=Path)
    add("--figures", nargs="*", default=[], type=Path, help="those without patients' images")
    add("--records", required=True, nargs="+", type=Path)
    add("--report", required=True, type=Path, help="the report without images")
    add("--config", required=True, help="the resolved config, JSON")
    add("--lock", required=True, type=Path, help="the environment's lock")
    add("--citation", required=True, type=Path, help="how to cite it (CITATION.cff)")
    add("--manifest", required=True, nargs="+", type=Path, help="whose ids and texts to look for")
    add("--prompts", required=True, nargs="+", type=Path, help="likewise")
    add("--output", required=True, type=Path, help="the tar.gz to write")
    args = parser.parse_args(argv)
    members = members_of(args)
    ids: set[str] = set()
    passages: dict[str, None] = {}
    for path in args.manifest:
        named, written = (
            ["image_id", "patient_id", "study_id"],
            ["caption", "indication", "report"],
        )
        frame = read_manifest(path, [*named, *written])
        for column in named:
            ids |= set(frame[column])
        for column in written:
            passages |= dict.fromkeys(frame[column].dropna())
    for path in args.prompts:
        ids |= set(read_prompts(path)["prompt_id"])
    check(members, ids, list(passages))
    with whole_file(args.output) as temporary:
        temporary.write_bytes(pack(members))
    log.info("%d files in %s", len(members), args.output)


if __name__ == "__main__":
    run_script(main)
