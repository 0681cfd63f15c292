"""Mistakes that a scoring script could make, each planted in one function or constant."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from workflow_scripts.common.as_published import deviations
from workflow_scripts.common.manifest import FINDINGS, read_manifest
from workflow_scripts.downstream import gains
from workflow_scripts.downstream.classification import metrics as classification_metrics
from workflow_scripts.downstream.classification import score as classification
from workflow_scripts.downstream.report_generation.metrics import corpus, overlap
from workflow_scripts.downstream.segmentation import metrics as segmentation_metrics
from workflow_scripts.downstream.segmentation import score as segmentation
from workflow_scripts.downstream.segmentation import score_labeller
from workflow_scripts.faithfulness import (
    anatomy_values,
    contrasts,
    structure_values,
    texture_values,
)
from workflow_scripts.faithfulness import score as faithfulness
from workflow_scripts.faithfulness import score_labeller as organs_labeller
from workflow_scripts.fidelity import alignment, comparison, floor, frechet, kernel, manifold
from workflow_scripts.fidelity import score as fidelity
from workflow_scripts.fidelity.metrics import kid
from workflow_scripts.fidelity.resample import Units
from workflow_scripts.privacy import (
    score as privacy,
)
from workflow_scripts.privacy import (
    score_attacker,
    score_closest,
    score_guarantee,
    score_lenses,
    score_novelty,
)
from workflow_scripts.privacy.extraction import score as extraction
from workflow_scripts.privacy.membership import score as membership
from workflow_scripts.privacy.membership import score_samples

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Attributes:
        name: What is wrong.
        script: Key in `scripts.SCRIPTS` of the script with the mistake.
        moves: Start of a difference that `compare.differences` must list, among others.
        plant: Patches the code under test.
        file: Path of the content that it moves, where it is not the script's first.
    """

    name: str
    script: str
    moves: str
    plant: Callable[[Patch], None]
    file: str | None = None


def wrapped(module: Any, name: str, change: Callable[..., Any]) -> Callable[[Patch], None]:
    """Return a patch that replaces a function f by `change(f, *args)`."""
    original = getattr(module, name)

    def plant(patch: Patch) -> None:
        patch.setattr(module, name, lambda *args, **kw: change(original, *args, **kw))

    return plant


def constant(module: Any, name: str, value: Any) -> Callable[[Patch], None]:
    """Return a patch that sets a constant of a module."""
    return lambda patch: patch.setattr(module, name, value)


def shifted_rows(original: Any, *args: Any) -> np.ndarray:
    """Return the rows of a join shifted by one: each row gets its predecessor's."""
    return np.roll(original(*args), 1)


# Fidelity


def _covariance_over_n(original: Any, features: Any) -> Any:
    mean, factor = original(features)
    return mean, factor * ((len(features) - 1) / len(features)) ** 0.5


def _no_mean(original: Any, features: Any) -> Any:
    mean, factor = original(features)
    return 0 * mean, factor


def _trace_without_root(original: Any, a1: Any, a2: Any) -> Any:
    return (a1 @ a2.T).square().sum()


def _patients_ignored(original: Any, *rest: Any, within_units: bool) -> Any:
    return original(*rest, within_units=True)


def _next_k(original: Any, x: Any, y: Any, nearest_k: int, *rest: Any) -> Any:
    return original(x, y, nearest_k + 1, *rest)


def _precision_is_recall(patch: Patch) -> None:
    precision, recall = manifold.Manifolds.precision, manifold.Manifolds.recall
    patch.setattr(manifold.Manifolds, "precision", recall)
    patch.setattr(manifold.Manifolds, "recall", precision)


def _uncertain_in_subsets(original: Any, findings: pd.DataFrame) -> np.ndarray:
    return original(findings.assign(**{name: findings[name].abs() for name in FINDINGS}))


def _findings_shifted(original: Any, findings: pd.DataFrame) -> np.ndarray:
    subsets = original(findings)
    return np.hstack([subsets[:, :1], np.roll(subsets[:, 1:], 1, axis=1)])


def _by_image(original: Any, real: Any, generated: Any) -> Any:
    return original(real, len(generated) or generated)


def _texts_shifted(original: Any, images: Any, other: Any, where: Any) -> np.ndarray:
    rows = original(images, other, where)
    return np.roll(rows, 1) if other.attrs["encoder"] == "biovil_t_text" else rows


def _interval_of_90(original: Any, values: np.ndarray, patients: np.ndarray) -> Any:
    mean, interval = original(values, patients)
    if interval is None:
        return mean, None
    degrees = len(set(patients)) - 1
    narrower = stats.t.ppf(0.95, degrees) / stats.t.ppf(0.975, degrees)
    return mean, tuple(mean + (bound - mean) * narrower for bound in interval)


def _image_dropped(original: Any, real: Any, generated: Any, *rest: Any, **named: Any) -> Any:
    fewer = fidelity.Side(generated.features[:-1], generated.subsets[:-1], generated.patients[:-1])
    if named.get("cosines") is not None:
        named["cosines"] = named["cosines"][:-1]
    return original(real, fewer, *rest, **named)


def _sides_swapped(original: Any, x: Any, y: Any, k: int, device: Any, units: Any) -> Any:
    return original(y, x, k, device, Units(units.generated, units.real))


def _whole_test_set(original: Any, real: Any, *rest: Any) -> Any:
    return np.arange(len(real)), original(real, *rest)[1]


def _floor_of_any_finding(original: Any, images: Any, has: np.ndarray, *rest: Any) -> Any:
    return original(images, np.zeros_like(has), *rest)


def _floor_of_one_patient(original: Any, patients: np.ndarray, *rest: Any) -> Any:
    return original(np.arange(len(patients)), *rest)


def _prompts_findings(original: Any, features: Any, *rest: Any) -> Any:
    return original(replace(features, source_ids=None), *rest)


def _always_sound(original: Any, protocol: str) -> Any:
    return original("sound")


# Privacy


def _threshold_of_84(original: Any, table: Any, *rest: Any) -> Any:
    *others, settings = rest
    return original(table, *others, replace(settings, threshold=0.84))


def _least_score_counts(original: Any, pairs: pd.DataFrame) -> pd.DataFrame:
    turned = original(pairs.assign(reid=-pairs["reid"]))
    return original(pairs).assign(reid_max=-turned["reid_max"])


def _plain_norm(original: Any, real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    return original(real, generated) * real.shape[1] ** 0.5


def _pixels_wrap(original: Any, real: Any, generated: Any, switches: Any) -> float:
    return original(real, generated, deviations("as_published"))


def _prompt_dropped(
    original: Any, prompts: pd.DataFrame, patients: np.ndarray, settings: Any
) -> Any:
    return original(prompts.iloc[1:], patients[1:], settings)


def _images_drawn(original: Any, table: np.ndarray, patients: np.ndarray, settings: Any) -> Any:
    return original(table, np.arange(len(patients)), settings)


def _itself_counts(original: Any, *args: Any, **kw: Any) -> Any:
    return original(*args, **{**kw, "skip": None})


def _other_sign(
    original: Any, queries: Any, references: Any, weight: Any, bias: Any, *rest: Any, **kw: Any
) -> Any:
    return original(queries, references, -weight, bias, *rest, **kw)


def _one_match_fewer(original: Any, queries: Any, references: Any, *rest: Any, **kw: Any) -> Any:
    if len(rest) == 1:  # the closest training images; the other call has no k
        closest = original(queries, references, rest[0] + 1, **kw)
        return type(closest)(closest.rows[:, 1:], closest.values[:, 1:])
    return original(queries, references, *rest, **kw)


def _any_site(original: Any, features: Any, patients: Any, sites: Any, *rest: Any) -> Any:
    return original(features, patients, np.zeros(len(patients)), *rest)


def _auc_of_the_other_side(original: Any, same: np.ndarray, other: np.ndarray) -> float:
    return 1 - original(same, other)


def _training_patients_stay(original: Any, path: Any, held_out: Any, where: Any) -> Any:
    manifest = read_manifest(path).set_index("image_id")
    return np.arange(len(held_out.ids)), manifest.loc[held_out.ids].reset_index()


def _nearer_is_farther(original: Any, *args: Any) -> np.ndarray:
    return 1 - original(*args)


def _own_prompts_count(original: Any, radiographs: Any, patients: Any, *images: Any) -> np.ndarray:
    return original(radiographs, np.array([""] * len(patients)), *images)


def _calibrated_backwards(original: Any, base: Any, tuned: Any) -> Any:
    return original(tuned, base)


def _copies_ignored(original: Any, copies: Any) -> set[str]:
    return set()


def _last_image_picked(original: Any, tiles: Any, groups: Any, least: int) -> Any:
    return replace(original(tiles, groups, least), middle=np.array([rows[-1] for rows in groups]))


def _no_patches(original: Any, pixels: Any, tokens: Any, *view: int) -> Any:
    found = original(pixels, tokens, *view)
    return replace(found, values=np.where([False, False, True, True], 1.0, found.values))


def _held_out_as_they_lie(original: Any, seen: Any, as_they_lie: Any, *others: Any) -> Any:
    return as_they_lie if others[-1] == "held out" else original(seen, as_they_lie, *others)


def _mirrored_tokens_as_they_lie(original: Any, collection: Any, rows: Any) -> Any:
    return replace(original(collection, rows), read=lambda start: collection.read(rows[start]))


def _twice_as_many_alarms(original: Any, scores: Any, patients: Any, share: float) -> Any:
    return original(scores, patients, 2 * share)


def _exposed_among_planted(original: Any, scores: Any, planted: Any) -> Any:
    return original(scores, ~planted)


def _own_radiograph_counts(original: Any, *sides: Any, **kw: Any) -> Any:
    nobody = [
        replace(s, shown_patients=np.array([""] * len(s.shown_patients), dtype=str)) for s in sides
    ]
    return original(*nobody, **kw)


def _second_wordings_count(original: Any, prompts: Any, *rest: Any) -> Any:
    return original(prompts.assign(second_wording=False), *rest)


def _any_at_five_percent_each(original: Any, alarms: Any, weights: np.ndarray) -> np.ndarray:
    raised = original(alarms, weights)
    return np.vstack([raised[:-1], raised[:-1].any(axis=0)])


# Downstream


def _uncertain_positive(original: Any, findings: pd.DataFrame) -> np.ndarray:
    return original(findings.assign(**{name: findings[name].abs() for name in FINDINGS}))


def _last_finding_lost(patch: Patch) -> None:
    original = classification.labels_of
    patch.setattr(classification, "FINDINGS", FINDINGS[:-1])
    patch.setattr(classification, "labels_of", lambda findings: original(findings)[:, :-1])


def _ties_by_place(original: Any, truth: np.ndarray, scores: np.ndarray) -> float:
    return original(truth, scores + 1e-9 * np.arange(len(scores)))


def _images_not_patients(original: Any, patients: np.ndarray, *rest: Any) -> Any:
    return original(np.arange(len(patients)), *rest)


def _arms_swapped(original: Any, metric: str, own: Any, baseline: Any, **kw: Any) -> Any:
    values = original(metric, own, baseline, **kw)
    if baseline is None:
        return values
    return [*values[:-1], original(metric, baseline, own, **kw)[-1]]


def _half_width_of_90(original: Any, parts: Any, beyond: float) -> Any:
    return original(parts, min(1.0, 2 * beyond))


def _spread_over_n(original: Any, metric: str, own: Any, *rest: Any, **kw: Any) -> Any:
    values = original(metric, own, *rest, **kw)
    return [
        replace(v, value=float(own.points.std())) if v.metric == f"{metric}_sd" else v
        for v in values
    ]


def _overlap_over_union(patch: Patch) -> None:
    original = segmentation_metrics.dice
    for module in (segmentation_metrics, segmentation):
        patch.setattr(module, "dice", lambda counts: original(counts) / (2 - original(counts)))


def _masks_shifted(original: Any, predicted: np.ndarray, *rest: Any) -> Any:
    return original(np.roll(predicted, 1, axis=0), *rest)


def _no_brevity_penalty(original: Any, counts: np.ndarray, order: int) -> np.ndarray:
    counts = counts.copy()
    counts[:, 1] = np.minimum(counts[:, 1], counts[:, 0])
    return original(counts, order)


def _uncertain_is_positive(original: Any, classes: np.ndarray, uncertain: bool) -> np.ndarray:
    return original(classes, True)


def _reports_shifted(original: Any, generated: Any, references: Any) -> np.ndarray:
    return original([*generated[1:], generated[0]], references)


_FIDELITY: Final = "fidelity/sound/tiny.json"
_PRIVACY: Final = "privacy/as_published/tiny.json"
"""The faster of the two protocols, for mistakes that affect both."""

_EXTRACTION: Final = "privacy/extraction/tiny.json"
_CLOSEST: Final = "privacy/closest/tiny.json"
_ATTACKER: Final = "privacy/attacker/as_published.json"
_CLASSIFIER: Final = "downstream/classification/real_only.json"
_SEGMENTER: Final = "downstream/segmentation/augmented.json"
_REPORTS: Final = "downstream/report_generation/augmented.json"

# Faithfulness

_JUDGE: Final = "faithfulness/findings/classifier/tiny.json"


def _radiographs_shifted(original: Any, labels: Any, patients: Any, images: Any, *args: Any) -> Any:
    radiographs, *rest = args
    return original(labels, patients, images, np.roll(radiographs, 1, axis=0), *rest)


def _anyones_partners(original: Any, asked: Any, patients: Any, *args: Any) -> Any:
    return original(asked, np.full(len(patients), "nobody"), *args)


def _prompts_not_groups(original: Any, groups: Any, *args: Any) -> Any:
    return original(np.arange(len(groups)), *args)


MISTAKES: Final = (
    Mistake(
        "a covariance over n",
        _FIDELITY,
        "values, fid of all, value",
        wrapped(frechet, "_mean_and_factor", _covariance_over_n),
    ),
    Mistake(
        "FID without the means",
        _FIDELITY,
        "values, fid of all, value",
        wrapped(frechet, "_mean_and_factor", _no_mean),
    ),
    Mistake(
        "FID's trace without the root",
        _FIDELITY,
        "values, fid of Edema, value",
        wrapped(frechet, "_trace_of_root", _trace_without_root),
    ),
    Mistake(
        "KID with pairs of one patient",
        _FIDELITY,
        "values, kid of all, value",
        wrapped(kernel, "kernel_distance", _patients_ignored),
    ),
    Mistake(
        "the next k",
        _FIDELITY,
        "values, coverage of all, value",
        wrapped(manifold, "manifold_overlap", _next_k),
    ),
    Mistake(
        "precision and recall swapped",
        _FIDELITY,
        "values, precision of all, value",
        _precision_is_recall,
    ),
    Mistake(
        "real and generated swapped",
        _FIDELITY,
        "values, density of all, value",
        wrapped(manifold, "manifold_overlap", _sides_swapped),
    ),
    Mistake(
        "a finding lost",
        _FIDELITY,
        "values, fid of Support Devices is no longer there",
        constant(fidelity, "SUBSETS", fidelity.SUBSETS[:-1]),
    ),
    Mistake(
        "findings shifted by one",
        _FIDELITY,
        "values, fid of Atelectasis, n ",
        wrapped(fidelity, "positive_subsets", _findings_shifted),
    ),
    Mistake(
        "uncertain findings taken as present",
        _FIDELITY,
        "values, fid of Pneumonia, n_reference ",
        wrapped(fidelity, "positive_subsets", _uncertain_in_subsets),
    ),
    Mistake(
        "captions joined to the images before",
        _FIDELITY,
        "values, alignment of all, value",
        wrapped(fidelity, "rows_in_order_of", _texts_shifted),
    ),
    Mistake(
        "generated images taken for other patients'",
        _FIDELITY,
        "values, kid of all, interval[0]",
        wrapped(comparison, "units_of", _by_image),
    ),
    Mistake(
        "an interval of 90%",
        _FIDELITY,
        "values, alignment of all, interval[1]",
        wrapped(alignment, "mean_with_interval", _interval_of_90),
    ),
    Mistake(
        "an image dropped",
        _FIDELITY,
        "values, kid of all, n ",
        wrapped(fidelity, "distribution_values", _image_dropped),
    ),
    Mistake(
        "a floor of patients in both groups",
        _FIDELITY,
        "values, fid_floor of all, value",
        wrapped(floor, "disjoint_groups", _floor_of_one_patient),
    ),
    Mistake(
        "a finding's floor drawn from all images",
        _FIDELITY,
        "values, fid_floor of Support Devices, value",
        wrapped(floor, "floor_of_finding", _floor_of_any_finding),
    ),
    Mistake(
        "the whole test set as the reference",
        _FIDELITY,
        "values, fid of all, n_reference",
        wrapped(fidelity, "reference_rows", _whole_test_set),
    ),
    Mistake(
        "a direction turned",
        _FIDELITY,
        "values, kid of all, direction",
        lambda patch: patch.setattr(kid, "KID", replace(kid.KID, direction="higher")),
    ),
    Mistake(
        "another reference than was published",
        "fidelity/as_published/tiny.json",
        "values, fid of all, n_reference",
        wrapped(fidelity, "deviations", _always_sound),
    ),
    Mistake(
        "a control with its prompts' findings",
        "fidelity/sound/shown.json",
        "values, fid of Cardiomegaly, n ",
        wrapped(fidelity, "generated_findings", _prompts_findings),
    ),
    Mistake(
        "a threshold of 0.84",
        _PRIVACY,
        "values, reid_count of all, value",
        wrapped(privacy, "privacy_values", _threshold_of_84),
    ),
    Mistake(
        "the least score of a prompt's images",
        _PRIVACY,
        "values, reid_mean_of_max of all, value",
        wrapped(privacy, "prompt_table", _least_score_counts),
    ),
    Mistake(
        "scores joined to the images before",
        _PRIVACY,
        "values, reid_mean of all, value",
        wrapped(privacy, "rows_in_order_of", shifted_rows),
    ),
    Mistake(
        "a latent distance that grows with the dimensions",
        _PRIVACY,
        "values, latent_mean_of_min of all, value",
        wrapped(privacy, "latent_distance", _plain_norm),
    ),
    Mistake(
        "pixels that wrap in the protocol sound",
        "privacy/sound/tiny.json",
        "values, pixel_mean_of_min of all, value",
        wrapped(privacy, "pixel_distance", _pixels_wrap),
    ),
    Mistake(
        "a prompt dropped",
        _PRIVACY,
        "values, reid_share of all, n ",
        wrapped(privacy, "privacy_values", _prompt_dropped),
    ),
    Mistake(
        "images drawn instead of patients",
        _CLOSEST,
        "values, closest_latent_mean of all, interval[0]",
        wrapped(score_closest, "bootstrap_of_means", _images_drawn),
    ),
    Mistake(
        "a training image closest to itself",
        _CLOSEST,
        "values, authpct of all, value",
        wrapped(score_closest, "closest_by_distance", _itself_counts),
    ),
    Mistake(
        "a score of the other sign",
        _CLOSEST,
        "values, closest_reid_mean of all, value",
        wrapped(score_closest, "closest_by_score", _other_sign),
    ),
    Mistake(
        "the second closest training image",
        _CLOSEST,
        "values, closest_latent_min of all, value",
        wrapped(score_closest, "closest_by_distance", _one_match_fewer),
    ),
    Mistake(
        "a threshold of 0.84 for all training images",
        _CLOSEST,
        "values, closest_reid_share of all, value",
        wrapped(score_closest, "closest_values", _threshold_of_84),
    ),
    Mistake(
        "other patients of any site",
        _ATTACKER,
        "values, reid_auc of all, n_reference",
        wrapped(score_attacker, "score_pairs", _any_site),
    ),
    Mistake(
        "an AUC of the other side",
        _ATTACKER,
        "values, reid_auc of all, value",
        wrapped(score_attacker, "auc", _auc_of_the_other_side),
    ),
    Mistake(
        "held-out radiographs of training patients",
        _ATTACKER,
        "values, chance_share of all, n ",
        wrapped(score_attacker, "held_out_rows", _training_patients_stay),
    ),
    Mistake(
        "nearer taken for farther",
        "privacy/novelty/tiny.json",
        "values, nearer_to_training of all, value",
        wrapped(score_novelty, "_nearer", _nearer_is_farther),
    ),
    Mistake(
        "a control near to the radiograph that it shows",
        "privacy/novelty/shown.json",
        "values, nearer_to_held_out of all, value",
        wrapped(score_novelty, "nearness", _own_radiograph_counts),
    ),
    Mistake(
        "second wordings among the held-out captions",
        "privacy/novelty/tiny.json",
        "values, nearer_to_held_out of all, n ",
        wrapped(score_novelty, "held_out_prompts", _second_wordings_count),
    ),
    Mistake(
        "the images of a radiograph's own prompt count against its patient",
        "privacy/membership/tiny.json",
        "values, member_samples_auc of all, value",
        wrapped(score_samples, "closest_of_others", _own_prompts_count),
    ),
    Mistake(
        "the base checkpoint calibrated by the fine-tuned one",
        "privacy/losses/tuned.json",
        "values, member_loss_calibrated_auc of all, value",
        wrapped(membership, "attack_scores", _calibrated_backwards),
    ),
    Mistake(
        "a patient whose film training shows as well among the non-members",
        "privacy/losses/published.json",
        "values, member_loss_auc of all, n ",
        wrapped(membership, "shown_in_training", _copies_ignored),
    ),
    Mistake(
        "a picked image that is not the closest to its caption's others",
        _EXTRACTION,
        "values, extracted_count of all, value",
        wrapped(extraction, "repeats_of", _last_image_picked),
    ),
    Mistake(
        "no patch compared",
        _EXTRACTION,
        "values, latent_patch_extracted of all, value",
        wrapped(extraction, "scores_of", _no_patches),
    ),
    Mistake(
        "held-out radiographs compared as they lie, and images in all views",
        _EXTRACTION,
        "values, extracted_count of all, value",
        wrapped(extraction, "closest_in_views", _held_out_as_they_lie),
    ),
    Mistake(
        "tokens of images that were not mirrored",
        _EXTRACTION,
        "values, latent_patch_extracted of all, value",
        wrapped(extraction, "mirrored_collection", _mirrored_tokens_as_they_lie),
    ),
    Mistake(
        "alarms for twice as many held-out patients",
        _EXTRACTION,
        "values, images_alarmed of all, value",
        wrapped(extraction, "limits_of", _twice_as_many_alarms),
    ),
    Mistake(
        "a canary's exposure among the planted ones",
        "privacy/guarantee/tiny.json",
        "values, canary_exposure_0 of all, value",
        wrapped(score_guarantee, "exposures", _exposed_among_planted),
    ),
    Mistake(
        "any lens at 5% each",
        "privacy/lenses/shown.json",
        "values, any_seen of all, value",
        wrapped(score_lenses.Alarms, "raised", _any_at_five_percent_each),
    ),
    Mistake(
        "alarms for a tenth of what chance gives",
        "privacy/lenses/tiny.json",
        "values, latent_seen of all, value",
        constant(score_lenses, "FALSE_ALARMS", 0.1),
    ),
    Mistake(
        "uncertain labels taken as positive",
        _CLASSIFIER,
        "values, auroc of Edema, value",
        wrapped(classification, "labels_of", _uncertain_positive),
    ),
    Mistake(
        "ties of AUROC broken by place",
        _CLASSIFIER,
        "values, auroc of all, value",
        wrapped(classification_metrics, "roc_auc_score", _ties_by_place),
    ),
    Mistake(
        "a threshold above 0.5",
        _CLASSIFIER,
        "values, f1 of all, value",
        constant(classification_metrics, "THRESHOLD", 0.5 + 1e-9),
    ),
    Mistake(
        "test images drawn instead of patients",
        _CLASSIFIER,
        "values, accuracy of all, interval[0]",
        wrapped(classification, "patient_draws", _images_not_patients),
    ),
    Mistake(
        "a gain of the baseline over the arm",
        "downstream/classification/synthetic_only.json",
        "values, auroc_gain of all, value",
        wrapped(classification, "values_of", _arms_swapped),
    ),
    Mistake(
        "a finding lost by the classifier",
        _CLASSIFIER,
        "values, auroc of Support Devices is no longer there",
        _last_finding_lost,
    ),
    Mistake(
        "an interval over runs of 90%",
        _SEGMENTER,
        "values, dice of all, interval[0]",
        wrapped(gains, "_half_width", _half_width_of_90),
    ),
    Mistake(
        "a spread over n",
        _SEGMENTER,
        "values, dice_sd of all, value",
        wrapped(segmentation, "values_of", _spread_over_n),
    ),
    Mistake(
        "overlap over union for Dice",
        _SEGMENTER,
        "values, dice of all, value",
        _overlap_over_union,
    ),
    Mistake(
        "masks joined to the images before",
        "downstream/segmentation/labeller.json",
        "values, dice_exact of all, value",
        wrapped(score_labeller, "exact_values", _masks_shifted),
    ),
    Mistake(
        "BLEU without its brevity penalty",
        _REPORTS,
        "values, bleu_4 of all, value",
        wrapped(corpus, "bleu", _no_brevity_penalty),
    ),
    Mistake(
        "CheXbert's uncertain findings taken as present",
        _REPORTS,
        "values, chexbert_micro_f1_14 of all, value",
        wrapped(corpus, "is_positive", _uncertain_is_positive),
    ),
    Mistake(
        "reports compared with the ones before",
        _REPORTS,
        "values, rouge_l of all, value",
        wrapped(overlap, "rouge_l", _reports_shifted),
    ),
    Mistake(
        "ceilings of the radiographs before",
        _JUDGE,
        "values, judged_auroc_ceiling of Cardiomegaly, value",
        wrapped(faithfulness, "finding_values", _radiographs_shifted),
    ),
    Mistake(
        "plain percentiles of few patients",
        _JUDGE,
        "values, judged_auroc of Cardiomegaly, interval[0]",
        wrapped(gains, "percentiles", lambda original, draws, units=None: original(draws)),
    ),
    Mistake(
        "implausible beyond the outer tenth",
        _JUDGE,
        "values, implausible of all, value",
        constant(anatomy_values, "TAIL", 0.05),
        "faithfulness/anatomy/tiny.json",
    ),
    Mistake(
        "structures asked of half the radiographs",
        _JUDGE,
        "values, structures_lacking of all, value",
        constant(structure_values, "ALWAYS_THERE", 0.5),
        "faithfulness/anatomy/tiny.json",
    ),
    Mistake(
        "topology against the patient's own films",
        _JUDGE,
        "values, organ_dice_radiographs of all, value",
        wrapped(faithfulness, "partners_of", _anyones_partners),
        "faithfulness/texture/tiny.json",
    ),
    Mistake(
        "high frequencies from a fifth on",
        _JUDGE,
        "values, high_frequencies of all, value",
        constant(texture_values, "HIGH", 0.2),
        "faithfulness/texture/tiny.json",
    ),
    Mistake(
        "exact lungs swapped",
        "faithfulness/labeller/real.json",
        "values, right_lung_dice_exact of all, value",
        constant(organs_labeller, "BITS", {"right_lung": 2, "left_lung": 1, "heart": 4}),
    ),
    Mistake(
        "prompts drawn instead of their groups",
        "faithfulness/stress/tiny.json",
        "values, stress_side of all, interval[0]",
        wrapped(contrasts, "_group_draws", _prompts_not_groups),
    ),
)
