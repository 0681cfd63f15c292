"""Filter a pool, draw the curated set, and decide whether it may be released.

    python -m workflow_scripts.curate.decide --model sana --cohort MIMIC-CXR \\
        --protocol sound --source mimic_cxr_jpg --manifest results/cohort/manifest.parquet \\
        --prompts results/cohort/prompts/augment.parquet \\
        --shards results/generate/sana/augment/part-*.parquet --family sana --base weights/sana \\
        --lenses results/curate/sana/lenses.parquet --features results/curate/sana/features \\
        --real results/features/real/train --seen results/curate/sana/seen.parquet \\
        --radiographs results/faithfulness/seen/real.parquet \\
        --searched-manifests results/cohort/manifest.parquet \\
        --searched-prompts results/cohort/prompts/*.parquet \\
        --pool augment --images 10000 ... --output results/curate/sana

It writes into the folder `dataset/data/` (the set), `decision.json`, `decision.html` (a page for
the steward), `filter.json` (the record, for the tables) and `chosen.parquet` (which pool image each
of the set is; for its owner alone). What is published is searched for captions, ids and real images
of the cohort first; a set that holds any is not written. The same inputs give the same bytes, but
for the record's time.
"""

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from workflow_scripts.common.as_published import PROTOCOLS
from workflow_scripts.common.errors import InputError, run_script
from workflow_scripts.common.files import whole_file, write_text
from workflow_scripts.common.images import find_in_shards
from workflow_scripts.common.manifest import FINDINGS, TEMPLATE, read_manifest, read_prompts
from workflow_scripts.common.progress import Progress
from workflow_scripts.common.records import read_record, write_record
from workflow_scripts.common.settings import add_flags, settings_of_flags
from workflow_scripts.curate import filters
from workflow_scripts.curate.bounds import LEVEL, least_share, most_left
from workflow_scripts.curate.draw import drawn
from workflow_scripts.curate.filter_record import filter_record
from workflow_scripts.curate.kinds import EVERY_KIND
from workflow_scripts.curate.lenses import LENS_SCHEMA, LENSES
from workflow_scripts.curate.page import page
from workflow_scripts.curate.plant import square_gray
from workflow_scripts.curate.search import check_images, check_texts, cohort_texts
from workflow_scripts.curate.settings import ATTACKS, CurateSettings
from workflow_scripts.curate.terms import access_of_weights, terms_of
from workflow_scripts.downstream.data import labels_of
from workflow_scripts.faithfulness.anatomy_values import Rule, halves, measured
from workflow_scripts.faithfulness.seen import Seen, read_seen
from workflow_scripts.features.cache import read_features
from workflow_scripts.fidelity.resample import wilson_interval
from workflow_scripts.privacy.private_table import read_private_table, write_private_table

log = logging.getLogger(__name__)

ROWS_PER_GROUP: Final = 32
"""Of the set's Parquet files: what a viewer reads at once."""

SCORES: Final = (*LENSES, "density")
"""The scores that go with each image, as `score_{name}`."""

CHOSEN_SCHEMA: Final = pa.schema(
    [pa.field("file", pa.string()), pa.field("prompt_id", pa.string())]
)

NOT_TESTED: Final = (
    "leaks of other kinds than those planted: for example a part of a radiograph, such as a rare "
    "device or an old fracture, within an otherwise new picture",
    "attacks that nobody has published yet, or that know more than the images",
    "whether a radiologist would take the images for real, or their findings for right",
    "whether the images treat groups of patients alike: the cohort says too little of them here",
)


NONE_GIVEN: Final = "no images of such a model were given"
"""`curate.overfitted` of the config would name them."""


@dataclass
class Filtered:
    """What the filter says of a pool, of what was planted, and of unseen radiographs.

    Attributes:
        pool: a row for each pool image, with lens values, `density`, `leak`, and the three reasons
            `sparse`, `implausible`, `unseen`, and `labels` apart.
        labels: (n, 14), 1 where a finding was asked for.
        planted: caught and planted, by kind; 0 and 0 of a kind that could not be planted.
        refused: of the unseen radiographs of the second half, whether privacy refuses each.
        tried: those radiographs' rows.
        poor: of the test radiographs among them, whether quality refuses each.
        limits: of each lens and of density.
        without: findings without a limit, and why.
    """

    pool: pd.DataFrame
    labels: np.ndarray
    planted: dict[str, tuple[int, int]]
    refused: np.ndarray
    tried: pd.DataFrame
    poor: np.ndarray
    limits: dict[str, float]
    without: dict[str, str]


def filtered(args: argparse.Namespace, policy: CurateSettings) -> Filtered:
    """Set the limits on unseen radiographs and apply them.

    Raises:
        InputError: files are missing, or of other images.
    """
    lenses = read_private_table(args.lenses, LENS_SCHEMA)
    features = read_features(args.features / "rad_dino.h5").features
    training = read_features(args.real / "rad_dino.h5").features
    rng = np.random.default_rng(policy.seed)
    count = min(policy.references, len(training))
    if count <= filters.NEAREST:
        raise InputError(
            f"{count} training radiographs, of which density needs more than {filters.NEAREST}",
            args.real,
            "raise curate.references or enlarge the cohort",
        )
    references = training[np.sort(rng.permutation(len(training))[:count])]
    lenses = lenses.assign(
        density=filters.density(features[lenses["rows_of_features"].to_numpy()], references)
    )
    unseen = lenses[lenses["group"] == "held_out"].reset_index(drop=True)
    first = halves(unseen["patient_id"].to_numpy(str), policy.seed)
    limits: dict[str, float] = {}
    for lens, side in LENSES.items():
        limits |= filters.limits_of(unseen[first], {lens: side}, policy.false_alarms(lens))
    sparse = {"density": "low"}
    limits |= filters.limits_of(unseen[first], sparse, policy.quality_false_alarms)

    def leaks(rows: pd.DataFrame) -> np.ndarray:
        return np.any(list(filters.beyond(rows, LENSES, limits).values()), axis=0)

    planted = lenses[lenses["group"] == "planted"]
    caught = pd.Series(leaks(planted), index=planted["kind"])
    tried = unseen[~first].reset_index(drop=True)

    # Quality: the judge and the organs.
    seen, radiographs = read_seen(args.seen), read_seen(args.radiographs)
    check_same_networks(radiographs, seen, args.seen)
    manifest = read_manifest(args.manifest).set_index("image_id", drop=False)
    known = radiographs.rows["id"].isin(unseen["id"]).to_numpy()
    half_of = dict(zip(unseen["id"], first, strict=True))
    own = known & radiographs.rows["id"].map(lambda n: half_of.get(n, False)).to_numpy(bool)
    other = known & ~own
    judge = next(iter(radiographs.run["settings"]["judges"]))
    real_labels = labels_of(manifest.loc[radiographs.rows["id"]])
    real_seen = radiographs.probabilities(judge)
    visible, without = filters.visible_limits(
        real_seen[own], real_labels[own], policy.quality_false_alarms
    )
    real_rows = measured(radiographs.rows)
    rule = Rule(real_rows[own])
    density_of = dict(zip(unseen["id"], unseen["density"], strict=True))
    others = real_rows[other]
    poor = rule.implausible(others)
    poor |= filters.not_visible(real_seen[other], real_labels[other], visible)
    poor |= others["id"].map(density_of).to_numpy(float) < limits["density"]

    pool = lenses[lenses["group"] == "pool"].sort_values("id", kind="stable")
    pool = pool.reset_index(drop=True)
    prompts = read_prompts(args.prompts).set_index("prompt_id", drop=False)
    unknown = sorted(set(pool["id"]) - set(prompts.index) | set(pool["id"]) - set(seen.rows["id"]))
    if unknown:
        raise InputError(
            f"{len(unknown)} image(s) of the pool have no prompt, or were not looked at, "
            f"first {unknown[0]!r}",
            args.lenses,
            "rerun the curate stage",
        )
    asked = prompts.loc[pool["id"]]
    labels = labels_of(asked)
    place = seen.rows.index.get_indexer(pd.Index(pool["id"]))
    looked = Seen(seen.rows.iloc[place], seen.run)
    pool = pool.assign(
        leak=leaks(pool),
        sparse=pool["density"] < limits["density"],
        implausible=rule.implausible(measured(looked.rows)),
        unseen=filters.not_visible(looked.probabilities(judge), labels, visible),
        caption=asked["caption"].to_list(),
        caption_source=asked["caption_source"].to_list(),
    )
    by_kind = caught.groupby(level=0)
    sums = by_kind.agg(["sum", "size"]).reindex(list(EVERY_KIND), fill_value=0)
    counts = {str(kind): (int(row["sum"]), int(row["size"])) for kind, row in sums.iterrows()}
    return Filtered(pool, labels, counts, leaks(tried), tried, poor, limits, without)


def check_same_networks(real: Seen, other: Seen, where: Path) -> None:
    """Check that the same judges and the same labeller looked at both.

    Raises:
        InputError: they did not.
    """
    for key in ("judges", "cxas_sha256", "cxas_size", "protocol"):
        if real.run["settings"].get(key) != other.run["settings"].get(key):
            raise InputError(
                f"{key} differs between the radiographs and the pool",
                where,
                "delete it and rerun curate_look",
            )
    if not real.run["settings"]["judges"]:
        raise InputError("no judge looked at the images", where, "set faithfulness.judges")


def decision_of(
    args: argparse.Namespace,
    policy: CurateSettings,
    found: Filtered,
    kept: np.ndarray,
    missing: dict[str, int],
) -> dict[str, Any]:
    """Return what `decision.json` says.

    Args:
        args: of the command line.
        policy: the limits.
        found: what the filter says.
        kept: rows of the pool that are in the set.
        missing: of quotas and size.
    """
    pool = found.pool
    flagged = pool[pool["leak"]]
    clean = pool[~pool["leak"]]
    planted: list[dict[str, Any]] = [
        {
            "kind": kind,
            "words": EVERY_KIND[kind],
            "planted": total,
            "caught": caught,
            "sensitivity": caught / total if total else None,
            "low": least_share(caught, total) if total else None,
            "reason": None if total else NONE_GIVEN,
        }
        for kind, (caught, total) in found.planted.items()
    ]
    tried = [row for row in planted if row["planted"]]
    worst = min(tried, key=lambda row: row["low"])
    multiplicity = int(clean["nearest_patient_id"].value_counts().max()) if len(clean) else 0
    left = min(
        most_left(
            len(flagged),
            flagged["nearest_patient_id"].nunique(),
            worst["low"],
            len(clean),
            multiplicity,
        ),
        len(kept),
    )
    share_left = left / len(kept) if len(kept) else None
    units = found.tried["patient_id"].nunique()
    rejected = float(found.refused.mean())
    share_flagged = float(pool["leak"].mean())
    interval = wilson_interval(share_flagged, len(pool))
    low, high = wilson_interval(rejected, units)
    lowest = min(tried, key=lambda row: row["sensitivity"])
    rows: list[dict[str, Any]] = [
        _measured("flagged", "Share of the pool that looks like a leak", share_flagged, *interval)
        | _against(share_flagged <= policy.most_flagged, policy.most_flagged),
        _measured(
            "sensitivity",
            f"Planted leaks caught, of the kind caught least ({lowest['words']})",
            lowest["sensitivity"],
            lowest["low"],
            1.0,
        )
        | _against(lowest["sensitivity"] >= policy.least_sensitivity, policy.least_sensitivity),
        _measured(
            "remaining_leaks",
            "Leaks of the planted kinds that may be left, at most, as a share of the set",
            share_left,
            reason=None if len(kept) else "no image is left",
        )
        | _against(
            None if share_left is None else share_left <= policy.most_remaining,
            policy.most_remaining,
        ),
        _measured(
            "false_rejections",
            "Radiographs of unseen patients that are taken for leaks",
            rejected,
            low,
            high,
        )
        | _against(rejected <= policy.most_false_rejections, policy.most_false_rejections),
    ]
    for key, words in (
        ("sparse", "Share of the pool unlike any radiograph (RAD-DINO density)"),
        ("implausible", "Share of the pool with implausible anatomy"),
        ("unseen", "Share of the pool in which the judge misses a finding that was asked for"),
    ):
        share = float(pool[key].mean())
        rows.append(_measured(key, words, share, *wilson_interval(share, len(pool))))
    if len(found.poor):
        share = float(found.poor.mean())
        rows.append(
            _measured(
                "poor_radiographs",
                "Radiographs of unseen patients that the quality checks refuse",
                share,
                *wilson_interval(share, units),
            )
        )
    rows += record_rows(args.records, policy.most_by_attacks)
    reasons = _reasons(args, policy, rows, found, missing, len(kept))
    verdict: str = "do_not_release" if reasons else policy.access
    if not reasons:
        reasons = ["every limit that was set beforehand is met"]
        if policy.published_prompts == "captions":
            verdict = "credentialed"
            reasons.append("the set carries captions of the cohort")
        if policy.access == "credentialed":
            reasons.append("the rules that were set beforehand allow no wider access")
        # The card says what the terms leave; the page must not say more.
        terms = terms_of(verdict, args.cohort, args.family, args.base)
        verdict = terms.access
        if terms.training_data.access != "release":
            reasons.append(f"the terms of {args.cohort} leave no wider access")
        if access_of_weights(terms.weights) != "release":
            reasons.append(
                "it is not known whether the terms of the model's weights allow wider access"
            )
    return {
        "model": args.model,
        "cohort": {"name": args.cohort, "source": args.source},
        "pool": {"prompt_set": policy.pool, "images": len(pool)},
        "policy": _policy(policy),
        "limits": found.limits,
        "measured": rows,
        "planted": planted,
        "remaining_leaks_upper": left,
        "confidence": 1 - LEVEL,
        "kept": len(kept),
        "missing": missing,
        "verdict": verdict,
        "reasons": reasons,
        "not_tested": [
            *(
                f"whether the filter finds {r['words']}: {r['reason']}"
                for r in planted
                if r["reason"]
            ),
            *NOT_TESTED,
            *(f"whether {name} is visible: {why}" for name, why in found.without.items()),
        ],
    }


def _measured(
    key: str,
    words: str,
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    reason: str | None = None,
) -> dict[str, Any]:
    return {
        "key": key,
        "words": words,
        "value": value,
        "low": low,
        "high": high,
        "limit": None,
        "passed": None,
        "reason": reason,
    }


def _against(passed: bool | None, limit: float) -> dict[str, Any]:
    return {"passed": None if passed is None else bool(passed), "limit": limit}


def record_rows(records: Sequence[Path], most: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return what the stages before measured of the model, for the reader.

    Args:
        records: the model's.
        most: largest values by metric, of those that have a limit. A limit on what no record has
            stands with the reason.
    """
    wanted = {**ATTACKS, "fid": "Distance of all images from radiographs (FID, RAD-DINO)"}
    rows = []
    for path in sorted(records):
        record = read_record(path)
        for value in record.values if record.protocol == "sound" else ():
            if value.metric in wanted and value.subset == "all":
                low, high = value.interval or (None, None)
                words = wanted[value.metric]
                key = f"{record.stage}/{record.family}/{value.metric}"
                row = _measured(key, words, value.value, low, high, value.reason)
                if value.metric in most:
                    limit = most[value.metric]
                    row |= _against(None if value.value is None else value.value <= limit, limit)
                rows.append(row)
    known = {row["key"].rpartition("/")[2] for row in rows}
    for metric in sorted(set(most) - known):
        row = _measured(f"privacy/{metric}", ATTACKS[metric], None, reason="no record has it")
        rows.append(row | _against(None, most[metric]))
    return rows


def _reasons(
    args: argparse.Namespace,
    policy: CurateSettings,
    rows: list[dict[str, Any]],
    found: Filtered,
    missing: dict[str, int],
    kept: int,
) -> list[str]:
    """Return why the set must not be released; nothing where it may."""
    said = {
        "flagged": "the model memorises: too many of its images look like training radiographs",
        "sensitivity": "the filter catches too few of the planted leaks to be relied on",
        "remaining_leaks": "too many leaks may be left in the set",
        "false_rejections": "the filter takes too many unseen radiographs for leaks to tell leaks",
    }
    reasons = [said[row["key"]] for row in rows if row["passed"] is False and row["key"] in said]
    for row in rows:
        if row["limit"] is not None and row["key"].rpartition("/")[2] in ATTACKS:
            if row["passed"] is False:
                reasons.append(f"an attack on the model finds more than it may ({row['words']})")
            elif row["passed"] is None:
                reasons.append(f"an attack with a limit was not measured ({row['words']})")
    if found.pool["source"].notna().any():
        reasons.append("the pool is a control, which shows radiographs themselves")
    if kept == 0:
        reasons.append("no image passes the checks of privacy and quality")
    reasons += [
        f"{count} image(s) {'' if name == 'images' else f'with {name} '}are missing"
        for name, count in missing.items()
    ]
    return reasons


def _policy(policy: CurateSettings) -> list[dict[str, Any]]:
    words = {
        "privacy_false_alarms": "Share of unseen radiographs that each privacy lens may flag",
        "quality_false_alarms": "Share of unseen radiographs that each quality check may refuse",
        "most_flagged": "Largest share of the pool that may look like a leak",
        "least_sensitivity": "Share of planted leaks of each kind to be caught",
        "most_remaining": "Largest share of leaks that may be left",
        "most_false_rejections": "Largest share of unseen radiographs taken for leaks",
        "images": "Images of the set",
    }
    rows = [{"key": k, "words": w, "limit": getattr(policy, k)} for k, w in words.items()]
    rows += [
        {
            "key": f"lens/{lens}",
            "words": f"Share of unseen radiographs that the lens `{lens}` may flag instead",
            "limit": share,
        }
        for lens, share in sorted(policy.lens_false_alarms.items())
    ]
    rows += [
        {"key": f"attack/{metric}", "words": f"{ATTACKS[metric]}, at most", "limit": share}
        for metric, share in sorted(policy.most_by_attacks.items())
    ]
    return rows + [
        {"key": f"quota/{name}", "words": f"Images with {name}, at least", "limit": count}
        for name, count in sorted(policy.quotas.items())
        if count
    ]


def set_schema(prompts: bool) -> pa.Schema:
    """Return the columns of a curated set, with what `datasets` needs to show images."""
    fields = [
        pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
        *(pa.field(name, pa.int8()) for name in FINDINGS),
        *([pa.field("prompt", pa.string())] if prompts else []),
        *(pa.field(f"score_{name}", pa.float64()) for name in SCORES),
    ]
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    for field in fields[1:]:
        kind = str(field.type).replace("double", "float64")
        features[field.name] = {"dtype": kind, "_type": "Value"}
    told = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": told})


def write_set(
    args: argparse.Namespace, policy: CurateSettings, found: Filtered, rows: list[int]
) -> None:
    """Search what is to be published, and write the set.

    Raises:
        InputError: it holds captions, ids or real images of the cohort; nothing is written.
    """
    pool = found.pool.iloc[rows]
    labels = read_prompts(args.prompts).set_index("prompt_id").loc[pool["id"], list(FINDINGS)]
    named = {name: f"{args.model}-{k:06d}.png" for k, name in enumerate(pool["id"])}
    told = policy.published_prompts != "withheld"
    if policy.published_prompts == "templates" and (pool["caption_source"] != TEMPLATE).any():
        raise InputError(
            "prompts are to be published, and the pool's are captions of patients",
            args.prompts,
            "set curate.pool: stress, or curate.published_prompts: withheld or captions",
        )
    ids, passages = cohort_texts(args.searched_manifests, args.searched_prompts)
    texts = [("a file name", " ".join([args.model, *named.values()]))]
    if told:
        texts += [("the column of prompts", text) for text in pool["caption"]]
    # Captions go out on purpose where access is credentialed; ids never do.
    check_texts(texts, ids, [] if policy.published_prompts == "captions" else passages)
    images = {item.id: item for item in find_in_shards(args.shards, set(pool["id"]))}
    lenses = read_private_table(args.lenses, LENS_SCHEMA)
    real = set(lenses.loc[lenses["group"] != "pool", "digest"])
    manifest = read_manifest(args.manifest, ["image_id", "path"])
    files = dict(zip(manifest["image_id"], manifest["path"], strict=True))
    meter = Progress("comparing with closest radiographs", len(pool), "images")

    def shown() -> Iterator[tuple[str, Image.Image, list[Image.Image]]]:
        closest = zip(pool["id"], pool["nearest_image_id"], pool["latent_image_id"], strict=True)
        for name, *near in closest:
            image = images[name].open()
            films = [square_gray(files[film], min(image.size)) for film in sorted(set(near))]
            yield named[name], image, films
            meter.update()

    check_images(shown(), real)
    schema = set_schema(told)
    path = args.output / "dataset" / "data" / "train-00000-of-00001.parquet"
    content = [
        {
            "image": {"bytes": images[name].data, "path": named[name]},
            **{f: None if pd.isna(v) else int(v) for f, v in labels.iloc[k].items()},
            **({"prompt": pool["caption"].iloc[k]} if told else {}),
            **{f"score_{s}": float(pool[s].iloc[k]) for s in SCORES},
        }
        for k, name in enumerate(pool["id"])
    ]
    with whole_file(path) as temporary:
        table = pa.Table.from_pylist(content, schema)
        pq.write_table(table, temporary, compression="zstd", row_group_size=ROWS_PER_GROUP)
    chosen = pd.DataFrame({"file": list(named.values()), "prompt_id": list(named)}, dtype=object)
    write_private_table(chosen, CHOSEN_SCHEMA, args.output / "chosen.parquet")


def main(argv: list[str] | None = None) -> None:
    """Decide on one model's set from the command line."""
    args, policy = _arguments(argv)
    found = filtered(args, policy)
    good = ~found.pool[["leak", "sparse", "implausible", "unseen"]].any(axis=1).to_numpy()
    passed = np.flatnonzero(good)
    rows, missing = drawn(
        found.pool["id"].iloc[passed].tolist(),
        found.labels[passed],
        policy.quotas,
        policy.images,
        policy.seed,
    )
    kept = passed[rows]
    decision = decision_of(args, policy, found, kept, missing)
    write_set(args, policy, found, kept.tolist())
    said = json.dumps(decision, indent=1, sort_keys=True, allow_nan=False) + "\n"
    write_text(args.output / "decision.html", page(decision))
    write_text(args.output / "decision.json", said)
    settings = asdict(policy)
    refused, tried = int((~good).sum()), len(found.refused)
    record = filter_record(decision, args.protocol, refused, tried, settings)
    write_record(record, args.output / "filter.json")
    log.info("%s: %d images, %s", args.model, len(kept), decision["verdict"])


def _arguments(argv: list[str] | None) -> tuple[argparse.Namespace, CurateSettings]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Any = parser.add_argument
    add("--model", required=True, help="the model's key")
    add("--cohort", required=True, help="the cohort's name")
    add("--protocol", required=True, choices=PROTOCOLS)
    add("--source", required=True, help="the cohort's reader")
    add("--family", help="the model's family in the config")
    add("--base", help="the model's base checkpoint in the config")
    add("--manifest", required=True, type=Path)
    add("--prompts", required=True, type=Path, help="of the pool")
    add("--shards", required=True, nargs="+", type=Path, help="the pool")
    add("--lenses", required=True, type=Path, help="what lenses.py measured")
    add("--features", required=True, type=Path, help="folder of the candidates' features")
    add("--real", required=True, type=Path, help="folder of the training radiographs' features")
    add("--seen", required=True, type=Path, help="what look.py saw")
    add("--radiographs", required=True, type=Path, help="what faithfulness saw in radiographs")
    add("--records", nargs="*", default=[], type=Path, help="the model's records")
    add("--searched-manifests", required=True, nargs="+", type=Path, help="whose texts to look for")
    add("--searched-prompts", required=True, nargs="+", type=Path, help="likewise")
    add_flags(parser, CurateSettings)
    add("--output", required=True, type=Path, help="the folder")
    args = parser.parse_args(argv)
    return args, settings_of_flags(CurateSettings, args, parser)


if __name__ == "__main__":
    run_script(main)
