"""Simulated features of patients with several radiographs each, for every test of statistics.

A radiograph's features are the sum of a patient effect, a caption effect and noise of the film
itself. Each has a given share of the variance. A generated image shares the caption effect with the
radiographs of its caption, but not the patient effect. A generator without a shift is therefore
perfect: a single generated image has the distribution of a single radiograph. Images that a model
makes for one patient may be correlated beyond that (`World.answers`), as those of similar captions
are.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cohort:
    """The radiographs and the captions of a cohort: n radiographs, c captions, d features.

    Attributes:
        features: Features of the radiographs, (n, d).
        patients: The patient whom each radiograph shows, an index, (n,).
        captions: The caption of each radiograph, an index below c, (n,).
        effects: The caption effects, (c, d).
        asked: The patient of each caption, and so of the prompt with this caption, (c,).
    """

    features: np.ndarray
    patients: np.ndarray
    captions: np.ndarray
    effects: np.ndarray
    asked: np.ndarray


@dataclass(frozen=True)
class World:
    """The components of variance of the features; their total variance is 1.

    Attributes:
        dimensions: Number of features, d.
        icc: Intraclass correlation: the patient effect's share of the variance, 0 to 1.
        caption: The caption effect's share of the variance, 0 to 1 - icc.
        freedom: Degrees of freedom of Student's t, above 2, for heavy tails; None for Gaussians.
    """

    dimensions: int = 8
    icc: float = 0.0
    caption: float = 0.0
    freedom: float | None = None

    def cohort(
        self,
        rng: np.random.Generator,
        patients: int,
        images: int | np.ndarray,
        captions: int | None = None,
    ) -> Cohort:
        """Draw the radiographs of a cohort.

        Args:
            rng: Random generator.
            patients: Number of patients.
            images: Number of radiographs per patient, one number for all or (patients,).
            captions: Number of distinct captions per patient, which recur among the patient's
                radiographs; None for a caption per radiograph.
        """
        counts = np.broadcast_to(images, patients)
        shown = np.repeat(np.arange(patients), counts)
        film = np.concatenate([np.arange(count) for count in counts])
        within = film if captions is None else film % captions
        pairs, numbers = np.unique(np.column_stack([shown, within]), axis=0, return_inverse=True)
        numbers, asked = numbers.ravel(), pairs[:, 0]
        effects = self._noise(rng, len(asked))
        features = self._mixed(self._noise(rng, patients)[shown], effects[numbers], rng)
        return Cohort(features, shown, numbers, effects, asked)

    def answers(
        self,
        rng: np.random.Generator,
        cohort: Cohort,
        *,
        together: bool = False,
        shift: float = 0.0,
    ) -> np.ndarray:
        """Return the features of one generated image per caption, (c, d).

        Args:
            rng: Random generator.
            cohort: The cohort with the captions.
            together: Draw the patient effect once for all generated images of a patient, whose
                correlation is then the ICC. By default it is drawn for each image.
            shift: Added to every feature; the generator is perfect at 0.
        """
        count = len(cohort.asked)
        patient = self._noise(rng, count)
        if together:
            patient = patient[np.unique(cohort.asked, return_inverse=True)[1]]
        return self._mixed(patient, cohort.effects, rng) + shift

    def repeats(
        self, rng: np.random.Generator, cohort: Cohort, images: np.ndarray, share: float
    ) -> np.ndarray:
        """Replace some images by near copies of the first radiograph of their caption, (c, d).

        Args:
            rng: Draws which images are replaced, and the noise added to a copy, whose standard
                deviation is a tenth of the radiographs'.
            cohort: The cohort with the captions.
            images: One generated image per caption, (c, d).
            share: Probability that an image is replaced, 0 to 1.
        """
        first = np.unique(cohort.captions, return_index=True)[1]
        copies = cohort.features[first] + 0.1 * self._noise(rng, len(images))
        copied: np.ndarray = np.where(rng.random((len(images), 1)) < share, copies, images)
        return copied

    def _mixed(
        self, patient: np.ndarray, caption: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        rest = 1 - self.icc - self.caption
        parts = (
            (self.icc, patient),
            (self.caption, caption),
            (rest, self._noise(rng, len(patient))),
        )
        mixed: np.ndarray = sum(share**0.5 * part for share, part in parts)
        return mixed

    def _noise(self, rng: np.random.Generator, count: int) -> np.ndarray:
        noise: np.ndarray = rng.standard_normal((count, self.dimensions))
        if self.freedom is None:
            return noise
        # Multivariate Student's t, scaled to variance 1.
        return noise * ((self.freedom - 2) / rng.chisquare(self.freedom, (count, 1))) ** 0.5


def long_stays(rng: np.random.Generator, patients: int, mean: float) -> np.ndarray:
    """Draw the number of images per patient, (patients,): few for most, many for some.

    The numbers are geometric from 1 on, with expectation `mean`, which is at least 1.
    """
    return rng.geometric(1 / mean, patients)


def correlated(
    rng: np.random.Generator, patients: int, images: int | np.ndarray, icc: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw values of mean 0 and variance 1, correlated by `icc` within a patient.

    Returns:
        The values, (n,), and the patient of each, an index, (n,).
    """
    cohort = World(1, icc).cohort(rng, patients, images)
    return cohort.features[:, 0], cohort.patients


def binomial_bound(runs: int, share: float) -> float:
    """Return the largest count of an event of probability `share` to accept in `runs` runs.

    It is the expectation plus three standard errors. For the coverage of an interval, count the
    misses.
    """
    return runs * share + 3 * (runs * share * (1 - share)) ** 0.5
