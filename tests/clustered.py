"""Features of patients who have many radiographs: the one source of every simulation of statistics.

A radiograph's features are the sum of what its patient, its caption and the film itself give, in
stated shares of the variance. A generated image follows its caption and owes nothing to the patient
but what the caption says, so that a generator without a shift is perfect: one generated image alone
is distributed as one radiograph alone. Images that a model makes for one patient may resemble one
another beyond that (`World.answers`), as those of similar captions do.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cohort:
    """The radiographs of a cohort and its captions.

    Attributes:
        features: (n, d).
        patients: (n,), who is shown.
        captions: (n,), the number of each radiograph's caption.
        effects: (c, d), what each caption gives its images.
        asked: (c,), the patient of each caption: that of the prompt which asks it.
    """

    features: np.ndarray
    patients: np.ndarray
    captions: np.ndarray
    effects: np.ndarray
    asked: np.ndarray


@dataclass(frozen=True)
class World:
    """How features vary.

    Attributes:
        dimensions: d.
        icc: share of the variance that the images of one patient have in common, 0 to 1.
        caption: share that the images of one caption have in common, generated ones among them.
        freedom: degrees of freedom of Student's t, above 2, for heavy tails; None for Gaussians.
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
            rng: draws them.
            patients: how many.
            images: of each patient, or of all alike.
            captions: different captions of each patient, which recur among the patient's
                radiographs; None for one each.
        """
        counts = np.broadcast_to(images, patients)
        shown = np.repeat(np.arange(patients), counts)
        film = np.concatenate([np.arange(count) for count in counts])
        own = film if captions is None else film % captions
        pairs, of = np.unique(np.column_stack([shown, own]), axis=0, return_inverse=True)
        of, asked = of.ravel(), pairs[:, 0]
        effects = self._noise(rng, len(asked))
        features = self._mixed(self._noise(rng, patients)[shown], effects[of], rng)
        return Cohort(features, shown, of, effects, asked)

    def answers(
        self,
        rng: np.random.Generator,
        cohort: Cohort,
        *,
        together: bool = False,
        shift: float = 0.0,
    ) -> np.ndarray:
        """Return a model's image of each caption, (c, d): a perfect generator's, but for the shift.

        Args:
            rng: draws them.
            cohort: whose captions are asked.
            together: whether what a model's images owe to a patient is one draw for all images of
                this patient (their correlation is the ICC) or a new draw for each image.
            shift: of every feature.
        """
        count = len(cohort.asked)
        patient = self._noise(rng, count)
        if together:
            patient = patient[np.unique(cohort.asked, return_inverse=True)[1]]
        return self._mixed(patient, cohort.effects, rng) + shift

    def repeats(
        self, rng: np.random.Generator, cohort: Cohort, images: np.ndarray, share: float
    ) -> np.ndarray:
        """Return images of which some are near copies of the first radiograph of their caption.

        Args:
            rng: draws which, and what is new of a copy: a tenth of the radiographs' deviation.
            cohort: whose captions are asked.
            images: (c, d), one of each caption.
            share: of the captions, 0 to 1: the same for all images only where it is 0 or 1.
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
        # Student's t in all directions at once, of variance 1.
        return noise * ((self.freedom - 2) / rng.chisquare(self.freedom, (count, 1))) ** 0.5


def long_stays(rng: np.random.Generator, patients: int, mean: float) -> np.ndarray:
    """Return how many images each patient has, (patients,): most few, some many, `mean` on average.

    One and a geometric number, whose spread is about its mean.
    """
    return rng.geometric(1 / mean, patients)


def correlated(
    rng: np.random.Generator, patients: int, images: int | np.ndarray, icc: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return values of variance 1 about 0, (n,), those of one patient correlated, and who it is."""
    cohort = World(1, icc).cohort(rng, patients, images)
    return cohort.features[:, 0], cohort.patients


def binomial_bound(runs: int, share: float) -> float:
    """Return how often something of this probability may at most be seen in so many runs.

    Three standard errors above; of coverage, its complement counts.
    """
    return runs * share + 3 * (runs * share * (1 - share)) ** 0.5
