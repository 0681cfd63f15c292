"""Texture and topology of generated images against radiographs.

Texture: power spectra and noise of the drawn images against the drawn radiographs, and the
similarity of two images of a model. Topology: heart and lungs of an image against radiographs of
other patients with the same findings. The prompt's own radiograph is compared with the same
radiographs, as a reference. (A direct comparison with it would reward memorisation.)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from workflow_scripts.common.records import Value
from workflow_scripts.downstream.gains import kept_draws, patient_draws
from workflow_scripts.faithfulness.patients import KIND, jackknifed
from workflow_scripts.faithfulness.seen import Seen, unpack_organs
from workflow_scripts.faithfulness.texture import frequencies

PARTNERS: Final = 5
"""Radiographs of other patients that an image is compared with, at most."""

HIGH: Final = 0.3
"""Cycles per pixel from which on frequencies are called high."""

FEWEST: Final = 10
"""Images whose texture was measured, below which nothing is said of it."""


def texture_values(images: Seen, radiographs: Seen) -> list[Value]:
    """Return the values of texture of one model.

    Args:
        images: of the model.
        radiographs: of the test split.
    """
    sides = [seen.rows[seen.rows["spectrum"].notna()] for seen in (radiographs, images)]
    metrics = (
        ("spectrum_distance", "lower", _spectrum_distance, 0.0),
        ("high_frequencies", "none", _high_frequencies, -np.inf),
        ("noise", "none", _noise, -np.inf),
        ("signal_dependence", "none", _signal_dependence, -np.inf),
    )
    values = []
    counts = len(sides[0]), len(sides[1])
    patients = [rows["patient_id"].to_numpy(str) for rows in sides]
    stacked = [_Texture.of(rows) for rows in sides]
    for name, way, difference, least in metrics:
        if min(counts) < FEWEST:
            reason = f"texture of {min(counts)} images ({FEWEST} needed)"
            values.append(Value(name, None, way, counts[1], reason=reason))
            continue

        def statistic(
            keep: np.ndarray,
            kept: np.ndarray,
            difference: Callable[[_Texture, _Texture], float] = difference,
        ) -> float:
            return difference(stacked[0].only(keep), stacked[1].only(kept))

        value, interval = jackknifed(statistic, patients[0], patients[1], least)
        kind = None if interval is None else KIND
        values.append(
            Value(
                name,
                value,
                way,
                counts[1],
                n_reference=counts[0],
                interval=interval,
                interval_kind=kind,
            )
        )
    return [*values, *_alike("ms_ssim", images), *_alike("ms_ssim_radiographs", radiographs)]


def partners_of(
    asked: np.ndarray, patients: np.ndarray, labels: np.ndarray, owners: np.ndarray, seed: int
) -> list[np.ndarray]:
    """Return for each prompt the rows of radiographs of other patients with the same findings.

    Args:
        asked: (n, 14), 1 or 0: the findings of each prompt.
        patients: (n,), of each prompt's radiograph.
        labels: (k, 14) of the radiographs.
        owners: (k,), whose they are.
        seed: of the draw where there are more than PARTNERS.
    """
    by_findings: dict[bytes, list[int]] = {}
    for row, own in enumerate(labels.astype(np.int8)):
        by_findings.setdefault(own.tobytes(), []).append(row)
    rng = np.random.default_rng(seed)
    found = []
    for patient, wanted in zip(patients, asked.astype(np.int8), strict=True):
        rows = np.array(by_findings.get(wanted.tobytes(), []), int)
        rows = rows[owners[rows] != patient]
        found.append(rows if len(rows) <= PARTNERS else rng.choice(rows, PARTNERS, replace=False))
    return found


def topology_values(
    images: pd.DataFrame,
    own: pd.DataFrame,
    radiographs: pd.DataFrame,
    partners: list[np.ndarray],
) -> list[Value]:
    """Return the values of topology of one model.

    Args:
        images: see `anatomy_values.measured`, with `organs`; a row per prompt.
        own: the prompts' own radiographs, in the same order.
        radiographs: of the test split, whose rows the partners are.
        partners: of each prompt, see `partners_of`.
    """
    metrics = (
        ("organ_dice", "none"),
        ("organ_dice_radiographs", "none"),
        ("organ_dice_share", "none"),
        ("ratio_error", "none"),
        ("ratio_error_radiographs", "none"),
    )
    most = (1.0, 1.0, np.inf, np.inf, np.inf)
    pairs = _Pairs.of(images, own, radiographs, partners)
    if pairs is None:
        reason = "no prompt has a radiograph of another patient with the same findings"
        return [Value(name, None, way, 0, reason=reason) for name, way in metrics]
    first, second, dices, weights = pairs.first, pairs.second, pairs.dices, pairs.weights
    ratios = [rows["ratio"].to_numpy(float) for rows in (images, own, radiographs)]
    errors = [np.abs(side[first] - ratios[2][second]) for side in ratios[:2]]

    def mean(values: np.ndarray, kept: np.ndarray) -> float:
        defined = kept & np.isfinite(values)
        if not defined.any():
            return float("nan")
        return float(np.average(values[defined], weights=weights[defined]))

    def ratio_of_means(kept: np.ndarray) -> float:
        least = mean(dices[1], kept)
        return mean(dices[0], kept) / least if least > 0 else float("nan")

    statistics: tuple[Callable[[np.ndarray], float], ...] = (
        lambda kept: mean(dices[0], kept),
        lambda kept: mean(dices[1], kept),
        ratio_of_means,
        lambda kept: mean(errors[0], kept),
        lambda kept: mean(errors[1], kept),
    )
    whole = np.ones(len(first), bool)
    defined = (whole, whole, whole, np.isfinite(errors[0]), np.isfinite(errors[1]))
    values = []
    for (name, way), of_pairs, has, largest in zip(metrics, statistics, defined, most, strict=True):
        n = len(set(first[has]))  # prompts, not pairs
        # A pair falls out with the patient of either side.
        value, interval = jackknifed(
            lambda keep, kept, of_pairs=of_pairs: of_pairs(keep & kept),  # type: ignore[misc]
            pairs.partner_owners,
            pairs.owners,
            0.0,
            largest,
        )
        if np.isnan(value):
            reason = "no image shows heart and lungs"
            if name == "organ_dice_share":
                reason = "the prompts' own radiographs reach no Dice at all"
            values.append(Value(name, None, way, n, reason=reason))
            continue
        kind = None if interval is None else KIND
        values.append(Value(name, value, way, n, interval=interval, interval_kind=kind))
    return values


def drawn_axes(
    seen: tuple[Seen, Seen],
    organs: tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame],
    partners: list[np.ndarray],
    draws: int,
    seed: int,
) -> dict[str, Any]:
    """Return texture and topology lost on drawn sets of test patients, as a record keeps them.

    The sets are those on which downstream keeps the gains of a ladder's steps (`patient_draws`),
    where the test patients, the number of draws and the seed are the same. A pair of films counts
    as often as both patients were drawn.

    Args:
        seen: what was seen in the model's images and in the test radiographs.
        organs: images, own and radiographs of `topology_values`.
        partners: see `topology_values`.
        draws: of sets of patients.
        seed: of the draws.
    """
    names = np.unique(seen[1].rows["patient_id"].to_numpy(str))
    texture: list[tuple[np.ndarray, np.ndarray]] = []
    for side in seen:
        rows = side.rows[side.rows["spectrum"].notna()]
        texture.append((_Texture.of(rows).spectra, _places(names, rows["patient_id"])))
    pairs = _Pairs.of(*organs, partners)
    found: dict[str, list[np.ndarray]] = {"spectrum_distance": [], "organ_dice_share": []}
    for times in patient_draws(names, draws, seed):
        if all(len(spectra) >= FEWEST for spectra, _ in texture):
            means = [_weighted(times[:, places], spectra) for spectra, places in texture]
            decibels = 10 * (means[0] - means[1])
            found["spectrum_distance"].append(np.sqrt(np.mean(decibels**2, axis=1)))
        if pairs is not None:
            owners = (_places(names, side) for side in (pairs.owners, pairs.partner_owners))
            counts = np.prod([times[:, places] for places in owners], axis=0) * pairs.weights
            with np.errstate(invalid="ignore", divide="ignore"):
                share = (counts @ pairs.dices[0]) / (counts @ pairs.dices[1])
            found["organ_dice_share"].append(share)
    kept = {name: np.concatenate(parts) for name, parts in found.items() if parts}
    return {name: kept_draws(values, names) | {"seed": seed} for name, values in kept.items()}


def _places(names: np.ndarray, patients: Any) -> np.ndarray:
    """Return where patients stand among names, which are sorted and hold all of them."""
    return np.searchsorted(names, np.asarray(patients, str))


def _weighted(times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the means of values (n, k) where row i counts `times[:, i]` times; nan of none."""
    with np.errstate(invalid="ignore"):
        means: np.ndarray = (times @ values) / times.sum(axis=1, keepdims=True)
    return means


@dataclass(frozen=True)
class _Pairs:
    """Images beside radiographs of other patients with the same findings.

    Attributes:
        first: (pairs,), the row of the image.
        second: (pairs,), that of the radiograph.
        dices: (pairs,), of the image and of the prompt's own radiograph with it.
        weights: (pairs,): a prompt counts once, however many partners it has.
        owners: (pairs,), the patient of the prompt.
        partner_owners: (pairs,), that of the radiograph.
    """

    first: np.ndarray
    second: np.ndarray
    dices: tuple[np.ndarray, np.ndarray]
    weights: np.ndarray
    owners: np.ndarray
    partner_owners: np.ndarray

    @classmethod
    def of(
        cls,
        images: pd.DataFrame,
        own: pd.DataFrame,
        radiographs: pd.DataFrame,
        partners: list[np.ndarray],
    ) -> "_Pairs | None":
        """Return the pairs of `topology_values`; None where no prompt has a partner."""
        pairs = [(i, int(j)) for i, rows in enumerate(partners) for j in rows]
        if not pairs:
            return None
        first, second = (np.array(side) for side in zip(*pairs, strict=True))
        masks = [_organs(rows["organs"]) for rows in (images, own, radiographs)]
        owners = [rows["patient_id"].to_numpy(str) for rows in (images, radiographs)]
        return cls(
            first,
            second,
            (_dice(masks[0][first], masks[2][second]), _dice(masks[1][first], masks[2][second])),
            1 / np.bincount(first)[first],
            owners[0][first],
            owners[1][second],
        )


@dataclass(frozen=True)
class _Texture:
    """Texture of some images: log10 of power (n, bins), variance of noise, its slope, (n,) each."""

    spectra: np.ndarray
    noise: np.ndarray
    slopes: np.ndarray

    @classmethod
    def of(cls, rows: pd.DataFrame) -> "_Texture":
        """Stack the rows of a collection."""
        spectra = np.stack(rows["spectrum"].to_list()) if len(rows) else np.empty((0, 0))
        numbers = (rows[name].to_numpy(float) for name in ("noise", "signal_dependence"))
        return cls(spectra, *numbers)

    def only(self, kept: np.ndarray) -> "_Texture":
        """Return some of the images."""
        return _Texture(self.spectra[kept], self.noise[kept], self.slopes[kept])


def _decibels(real: _Texture, generated: _Texture) -> np.ndarray:
    return 10 * (generated.spectra.mean(axis=0) - real.spectra.mean(axis=0))


def _spectrum_distance(real: _Texture, generated: _Texture) -> float:
    return float(np.sqrt(np.mean(_decibels(real, generated) ** 2)))


def _high_frequencies(real: _Texture, generated: _Texture) -> float:
    return float(_decibels(real, generated)[frequencies() > HIGH].mean())


def _noise(real: _Texture, generated: _Texture) -> float:
    """Return 10 log10 of the ratio of the geometric means of the noises' variances."""
    least = (1 / 255) ** 2 / 12  # of rounding to 8 bits: they show no less
    logs = [np.log10(np.maximum(side.noise, least)).mean() for side in (generated, real)]
    return float(10 * (logs[0] - logs[1]))


def _signal_dependence(real: _Texture, generated: _Texture) -> float:
    """Return the difference of the slopes, in millionths."""
    return float(1e6 * (generated.slopes.mean() - real.slopes.mean()))


def _alike(metric: str, seen: Seen) -> list[Value]:
    pairs = seen.run["pairs"]
    if len(pairs) < FEWEST // 2:
        reason = f"{len(pairs)} pairs of images ({FEWEST // 2} needed)"
        return [Value(metric, None, "none", len(pairs), reason=reason)]
    similar = np.array([value for *_, value in pairs])
    owners = [
        seen.rows.loc[[pair[side] for pair in pairs], "patient_id"].to_numpy(str) for side in (0, 1)
    ]
    value, interval = jackknifed(
        lambda keep, kept: float(similar[keep & kept].mean()), owners[0], owners[1], 0.0, 1.0
    )
    kind = None if interval is None else KIND
    return [Value(metric, value, "none", len(pairs), interval=interval, interval_kind=kind)]


def _organs(packed: pd.Series) -> np.ndarray:
    return np.stack([unpack_organs(one) for one in packed])


def _dice(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the mean Dice of heart and lungs of pairs of images, (n,); 0 where one is absent."""
    both = (one & other).sum(axis=(2, 3))
    either = one.sum(axis=(2, 3)) + other.sum(axis=(2, 3))
    dice: np.ndarray = np.where(either > 0, 2 * both / np.maximum(either, 1), 0.0).mean(axis=1)
    return dice
