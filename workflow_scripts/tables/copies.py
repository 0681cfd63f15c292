"""What a table says of models whose images are not independent of each other."""

from collections.abc import Iterable

from workflow_scripts.common.records import Record


def words_of_copies(records: Iterable[tuple[str, Record]]) -> str:
    """Return a sentence that names the models with repeated or constant images; "" without any.

    Args:
        records: each with the name of its model. Its provenance says of each feature file that it
            rests on how many images of the collection repeat another one's pixels or have one
            value throughout; files of other versions do not, and are passed over.
    """
    found: dict[str, list[str]] = {}
    for name, record in records:
        for read in record.provenance.get("inputs", ()):
            for key, what in (("repeated_images", "repeat another"), ("constant_images", "blank")):
                count = read.get(key, 0)
                if count and f"{count:,} {what}" not in found.setdefault(name, []):
                    found[name].append(f"{count:,} {what}")
    named = "; ".join(f"{name}: {', '.join(counts)}" for name, counts in found.items() if counts)
    if not named:
        return ""
    return f"Images that are not independent, although the intervals treat them so: {named}."
