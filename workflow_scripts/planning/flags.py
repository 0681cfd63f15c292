"""Settings as the words of a command line. No function here needs Snakemake."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags that a shell reads back, see `words`."""
    return quoted(words(settings))


def words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags, sorted: `learning_rate: 1` becomes `--learning-rate 1`.

    True is the flag alone; False and None are nothing; a list follows its flag; a mapping repeats
    it with `key=value`.
    """
    found = []
    for key, value in sorted(settings.items()):
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif isinstance(value, (list, tuple)):
            found += [flag, *[str(item) for item in value]]
        elif isinstance(value, Mapping):
            for name, item in sorted(value.items()):
                found += [flag, f"{name}={_plain(item)}"]
        elif value is not False and value is not None:
            found += [flag, str(value)]
    return found


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def quote(word: Any) -> str:
    """Return a word as the shell reads it back."""
    return shlex.quote(str(word))


def quoted(found: Iterable[Any]) -> list[str]:
    """Return words as the shell reads them back."""
    return [quote(word) for word in found]


def labelled(flag: str, files: Iterable[tuple[str, str]]) -> list[str]:
    """Return a flag and the files that follow it, each with its label: `--images a=1.parquet`."""
    return [flag, *quoted(f"{label}={file}" for label, file in files)]
