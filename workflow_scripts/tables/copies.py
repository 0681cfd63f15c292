"""The sentence of a caption on models whose images are not independent of each other."""

from collections.abc import Iterable

from workflow_scripts.common.records import Record


def words_of_copies(records: Iterable[tuple[str, Record]]) -> str:
    """Return a sentence that names the models with repeated or constant images; "" without any.

    Args:
        records: each with the name of its model. Its provenance counts, for each feature file, the
            images that have the same pixels as another one, and those of one gray value. Feature
            files of older versions lack these counts and are ignored.
    """
    counts_by_model: dict[str, list[str]] = {}
    for name, record in records:
        for read in record.provenance.get("inputs", ()):
            for key, what in (("repeated_images", "repeat another"), ("constant_images", "blank")):
                count = read.get(key, 0)
                if count and f"{count:,} {what}" not in counts_by_model.setdefault(name, []):
                    counts_by_model[name].append(f"{count:,} {what}")
    named = "; ".join(
        f"{name}: {', '.join(counts)}" for name, counts in counts_by_model.items() if counts
    )
    if not named:
        return ""
    return f"Images that are not independent, although the intervals treat them so: {named}."
