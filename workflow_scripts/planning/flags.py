"""Settings as the words of a command line. No function here needs Snakemake."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags that a shell reads back, see `words`."""
    return quoted(words(settings))


def words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as flags, sorted: `learning_rate: 1` becomes `--learning-rate 1`.

    True gives the flag alone, False and None give nothing. The values of a list follow the flag. A
    mapping repeats the flag with `key=value`.
    """
    flagged = []
    for key, value in sorted(settings.items()):
        flag = f"--{key.replace('_', '-')}"
        if value is True:
            flagged.append(flag)
        elif isinstance(value, (list, tuple)):
            flagged += [flag, *[str(item) for item in value]]
        elif isinstance(value, Mapping):
            for name, item in sorted(value.items()):
                flagged += [flag, f"{name}={_plain(item)}"]
        elif value is not False and value is not None:
            flagged += [flag, str(value)]
    return flagged


def _plain(value: Any) -> Any:
    return str(value).lower() if isinstance(value, bool) else value


def quote(word: Any) -> str:
    """Return a word, quoted for the shell."""
    return shlex.quote(str(word))


def quoted(line: Iterable[Any]) -> list[str]:
    """Return words, each quoted for the shell."""
    return [quote(word) for word in line]


def labelled(flag: str, files: Iterable[tuple[str, str]]) -> list[str]:
    """Return a flag followed by files with their labels: `--images a=1.parquet`."""
    return [flag, *quoted(f"{label}={file}" for label, file in files)]
