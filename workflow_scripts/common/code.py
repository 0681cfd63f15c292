"""The project's files that a script's results depend on, and a digest of each.

A script depends on the modules that it imports, at its top or within a function, on their imports,
and on the data files that all of them name. A package that looks for its own modules
(`pkgutil.iter_modules(__path__)`) imports all of them. Comments, docstrings and blank lines do not
count: editing them changes no digest.
"""

import ast
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = "workflow_scripts"
DIGITS: Final = 16
"""Hexadecimal digits of a digest: 64 bits tell two versions of a file apart."""


ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout that this file lies in."""

_KNOWN: Final = {"path", "imports", "names", "digest", "finds"}
"""The keys of a cache entry, one for each file."""


class Code:
    """The project's modules as they lie on the disk, each read once.

    Args:
        root: folder that holds the package `workflow_scripts`.
        known: JSON file that caches what was parsed, by the SHA-256 of each file's path and bytes.
            It may be deleted at any time; None caches nothing.
    """

    def __init__(self, root: Path, known: Path | None = None) -> None:
        self._root = root
        self._known_path = known
        self._known = _read_known(known)
        self._used: dict[str, dict[str, Any]] = {}
        self._beside: dict[Path, dict[str, list[str]]] = {}
        self._modules: dict[str, dict[str, Any]] = {}
        self._paths: dict[str, str | None] = {}

    def files(self, *modules: str) -> list[str]:
        """Return the files that modules depend on, sorted, relative to the root.

        Args:
            modules: names below `workflow_scripts`, such as `fidelity.score`.

        Raises:
            ValueError: a module does not exist.
        """
        reached: set[str] = set()
        waiting = [f"{PACKAGE}.{name}" for name in modules]
        for name in waiting:
            if self._path_of(name) is None:
                raise ValueError(f"there is no module {name}")
        while waiting:
            path = self._path_of(waiting.pop())
            if path is not None and path not in reached:
                parsed = self._module(path)
                reached.update((path, *parsed["data"]))
                waiting += parsed["imports"]
        return sorted(reached)

    def digests(self, *modules: str) -> list[str]:
        """Return `file digest` for every file that modules depend on, sorted by file.

        Raises:
            ValueError: there is no such module.
        """
        listed = [
            f"{path.removeprefix(PACKAGE + '/')} {self._digest(path)}"
            for path in self.files(*modules)
        ]
        self._keep()
        return listed

    def _digest(self, path: str) -> str:
        if path.endswith(".py"):
            return str(self._module(path)["digest"])
        return hashlib.sha256((self._root / path).read_bytes()).hexdigest()[:DIGITS]

    def _path_of(self, name: str) -> str | None:
        """Return the file of a module or package; None where the project has none."""
        if name not in self._paths:
            base = name.replace(".", "/")
            paths = [f"{base}.py", f"{base}/__init__.py"]
            self._paths[name] = next((x for x in paths if (self._root / x).is_file()), None)
        return self._paths[name]

    def _module(self, path: str) -> dict[str, Any]:
        """Return the digest, the imports and the data files of a module."""
        if path not in self._modules:
            source = (self._root / path).read_bytes()
            key = hashlib.sha256(path.encode() + b"\0" + source).hexdigest()
            parsed = self._used[key] = self._known.get(key) or _parse(source, path)
            folder = Path(path).parent
            if folder not in self._beside:
                self._beside[folder] = _data_beside(self._root, folder)
            data = [file for name in parsed["names"] for file in self._beside[folder].get(name, ())]
            # Importing a.b.c runs a and a.b, too. In `from a import b`, b need not be a module.
            name = path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            named = [name, *parsed["imports"]]
            if parsed["finds"]:
                named += [f"{name}.{file.stem}" for file in (self._root / folder).glob("*.py")]
            targets = {x for target in named for x in lineage(target)}
            imports = [x for x in targets if self._path_of(x) is not None]
            self._modules[path] = {**parsed, "data": data, "imports": imports}
        return self._modules[path]

    def _keep(self) -> None:
        """Update the cache, with new entries in place of older ones of the same files."""
        if self._known_path is None or self._used.keys() <= self._known.keys():
            return
        read = {entry["path"] for entry in self._used.values()}
        others = {key: entry for key, entry in self._known.items() if entry["path"] not in read}
        self._known = others | self._used
        temporary = self._known_path.with_name(f"{self._known_path.name}.{os.getpid()}")
        with contextlib.suppress(OSError):  # it only saves parsing
            temporary.parent.mkdir(exist_ok=True)
            temporary.write_text(json.dumps(self._known), encoding="utf-8")
            temporary.replace(self._known_path)


def own_digests(*modules: str) -> list[str]:
    """Return `file digest` for every file of this checkout that modules depend on.

    They are part of a checkpoint's key, so that a killed run is not continued by other code.

    Raises:
        ValueError: there is no such module.
    """
    return Code(ROOT, ROOT / ".snakemake/code.json").digests(*modules)


def _parse(source: bytes, path: str) -> dict[str, Any]:
    tree = ast.parse(source, path)
    imports = sorted(set(_imports(tree, path)))
    names = sorted(set(_strings(tree)))
    finds = any(map(_finds_modules, ast.walk(tree)))
    digest = digest_of(tree)
    return {"path": path, "imports": imports, "names": names, "digest": digest, "finds": finds}


def digest_of(tree: ast.Module) -> str:
    """Return a digest of a module's syntax tree without docstrings."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [x for x in body if not _is_text(x)]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:DIGITS]


def lineage(name: str) -> Iterator[str]:
    """Yield the packages that hold a module, from the outermost on, and the module itself."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        yield ".".join(parts[:length])


def _is_text(node: ast.stmt) -> bool:
    """Return whether a statement is only a string: a docstring, also one below an assignment."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports(tree: ast.Module, path: str) -> Iterator[str]:
    """Yield the modules of the project that a module may import, wherever in it.

    `from a import b` may mean a module `b`, so `a.b` is included. Imports for type checkers alone
    are not.
    """
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (x.name for x in node.names if _is_ours(x.name))
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}: line {node.lineno}: import by the full name")
            if node.module and _is_ours(node.module):
                yield node.module
                yield from (f"{node.module}.{x.name}" for x in node.names)
        waiting += ast.iter_child_nodes(node)


def _finds_modules(node: ast.AST) -> bool:
    """Return whether this is a package's search for its own modules."""
    return isinstance(node, ast.Call) and ast.unparse(node) == "pkgutil.iter_modules(__path__)"


def _is_ours(name: str) -> bool:
    """Return whether a module belongs to this project."""
    return name.partition(".")[0] == PACKAGE


def _strings(tree: ast.Module) -> Iterator[str]:
    """Yield the text constants that could name a file or folder."""
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and re.fullmatch(r"[\w.-]{1,80}", text):
            yield text


def _data_beside(root: Path, folder: Path) -> dict[str, list[str]]:
    """Return the data files of a package, by the name that code uses for them.

    A file goes by its own name. Files in a folder that is not a package go by the folder's name.
    """
    data_files: dict[str, list[str]] = {}
    for path in sorted((root / folder).iterdir()):
        if path.is_file() and path.suffix != ".py":
            data_files[path.name] = [path.relative_to(root).as_posix()]
        elif path.is_dir() and path.name != "__pycache__" and not (path / "__init__.py").exists():
            files = sorted(file for file in path.rglob("*") if file.is_file())
            data_files[path.name] = [file.relative_to(root).as_posix() for file in files]
    return data_files


def _read_known(path: Path | None) -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(path.read_text(encoding="utf-8")) if path else {}
        return {key: entry for key, entry in known.items() if entry.keys() >= _KNOWN}
    except (OSError, ValueError, AttributeError):
        return {}
