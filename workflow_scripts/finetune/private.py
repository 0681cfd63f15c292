"""Fine-tuning with a guarantee: differential privacy (epsilon, delta) whose unit is the patient.

This is DP-SGD (Abadi et al., 2016, ACM CCS, arXiv 1607.00133) with patients in place of the users
of McMahan et al. (2018, arXiv 1710.06963). Each step draws every patient with the same probability.
It sums the gradients of a patient's images, clips the sum, adds up the clipped sums of the drawn
patients, and adds Gaussian noise once. Two training sets are neighbours if one has one patient
more. Opacus computes the epsilon (Renyi differential privacy of the subsampled Gaussian mechanism).

Opacus' clipping is not used, because it clips the gradient of each image, and a patient has many.
"""

import hashlib
import math
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import torch

from workflow_scripts.common.errors import InputError
from workflow_scripts.finetune.settings import PrivacySettings, TrainSettings

GUARANTEE: Final = "guarantee.json"
"""The file beside a checkpoint's weights that states its guarantee."""

ORDERS: Final = tuple(
    [1 + x / 10 for x in range(1, 100)] + [*range(11, 64)] + [2**k for k in range(6, 11)]
)
"""The Renyi orders that are tried: Opacus' default ones, and higher ones for small epsilons."""

_NEAR: Final = 0.001
"""Largest relative difference by which the epsilon spent may stay below the one asked for."""


def check_privacy(settings: TrainSettings, patients: int) -> None:
    """Refuse settings under which the guarantee would not hold or would mean nothing.

    Args:
        settings: the settings of a run with `privacy`.
        patients: number of patients in the training set.

    Raises:
        InputError: images are capped instead of clipping the patient's summed gradient; delta is
            not below one over the number of patients; fp16; captions encoded ahead.
    """
    privacy = settings.privacy
    assert privacy is not None
    if privacy.images_per_patient is not None:
        raise InputError(
            "images_per_patient caps a patient's images, but the guarantee is for patients: their "
            "summed gradient is clipped",
            "finetune.privacy.images_per_patient",
            "remove the key; max_grad_norm bounds a patient with any number of images",
        )
    if privacy.delta * patients >= 1:
        raise InputError(
            f"a delta of {privacy.delta:g} for {patients} patients guarantees nothing: publishing "
            "all data of one patient would satisfy it",
            "finetune.privacy.delta",
            f"choose one well below {1 / patients:.2g}",
        )
    if settings.mixed_precision == "fp16":
        raise InputError(
            "fp16 scales gradients, and with them the bound on a patient's gradient",
            "--mixed-precision",
            "use bf16 or no with finetune.privacy",
        )
    if settings.speed.captions_ahead:
        raise InputError(
            "captions cannot be encoded ahead if patients are drawn at random",
            "speed.captions_ahead",
            "switch it off for a model with finetune.privacy",
        )


def noise_multiplier(privacy: PrivacySettings, sample_rate: float, steps: int) -> float:
    """Return the noise's standard deviation, in units of the bound, that spends `epsilon`.

    Args:
        privacy: epsilon and delta.
        sample_rate: the probability that a step draws a patient.
        steps: optimiser steps of the whole run.

    Raises:
        InputError: no noise is enough.
    """
    from opacus.accountants.utils import get_noise_multiplier

    try:
        return float(
            get_noise_multiplier(
                target_epsilon=privacy.epsilon,
                target_delta=privacy.delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=min(0.01, _NEAR * privacy.epsilon),
                alphas=ORDERS,
            )
        )
    except ValueError as error:
        raise InputError(
            f"no noise gives an epsilon of {privacy.epsilon:g} in {steps} steps ({error})",
            "finetune.privacy.epsilon",
            "allow a larger epsilon, or train for fewer epochs",
        ) from None


def read_secret(privacy: PrivacySettings) -> str:
    """Return the hexadecimal seed of patients and noise: known in tests, else a new secret."""
    if privacy.noise_seed is not None:
        return hashlib.sha256(str(privacy.noise_seed).encode()).hexdigest()
    return secrets.token_hex(32)


def draw_patients(secret: str, step: int, patients: int, sample_rate: float) -> np.ndarray:
    """Return the patients that a step draws, each independently of the others, int64 (k,)."""
    drawn = _generator(secret, step, 0).random(patients) < sample_rate
    return np.flatnonzero(drawn)


def clip_to(parameters: Sequence[torch.Tensor], bound: float) -> float:
    """Scale all gradients together so that their norm is at most `bound`; return the norm before.

    The norm is computed in float64, because the guarantee rests on the bound.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    if norm > bound:
        for gradient in gradients:
            gradient.mul_(bound / norm)
    return norm


def draw_noise(
    secret: str, step: int, shapes: Sequence[Sequence[int]], scale: float
) -> list[torch.Tensor]:
    """Return one step's noise, float32 on the CPU: normal with standard deviation `scale`."""
    generator = _generator(secret, step, 1)
    return [
        torch.from_numpy(np.asarray(scale * generator.standard_normal(tuple(shape)), np.float32))
        for shape in shapes
    ]


def _generator(secret: str, step: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([int(secret, 16), step, purpose]))


class PrivateSteps:
    """The patients that each step draws, the noise that it adds, and the account of both.

    Args:
        settings: the run's settings, with `privacy`.
        patients: the patient of each training image, (n,).
        steps: optimiser steps of the whole run.
        secret: the secret from `read_secret`.

    Attributes:
        bound: the norm to which a patient's gradient is clipped.
        expected: mean number of patients drawn in a step. Gradients are divided by it; dividing
            by the number drawn would reveal that number.
    """

    def __init__(self, settings: TrainSettings, patients: np.ndarray, steps: int, secret: str):
        from opacus.accountants import RDPAccountant

        assert settings.privacy is not None
        self.privacy = settings.privacy
        self.bound = self.privacy.max_grad_norm
        self._secret = secret
        names, self._patient = np.unique(patients, return_inverse=True)
        order = np.argsort(self._patient, kind="stable")
        self._rows = np.split(order, np.cumsum(np.bincount(self._patient))[:-1])
        self.sample_rate = min(1.0, settings.batch_size / len(patients))
        self.expected = self.sample_rate * len(names)
        self.noise_multiplier = noise_multiplier(self.privacy, self.sample_rate, steps)
        self._accountant = RDPAccountant()

    def drawn(self, step: int) -> list[np.ndarray]:
        """Return the images of each patient that a step shows, as rows of the training images."""
        chosen = draw_patients(self._secret, step, len(self._rows), self.sample_rate)
        return [self._rows[patient] for patient in chosen]

    def patient(self, rows: np.ndarray) -> int:
        """Return the number of the patient that these images show."""
        return int(self._patient[rows[0]])

    def noise(self, step: int, shapes: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the noise of a step, one tensor for each parameter."""
        return draw_noise(self._secret, step, shapes, self.noise_multiplier * self.bound)

    def count(self) -> None:
        """Add one step to the account."""
        self._accountant.step(noise_multiplier=self.noise_multiplier, sample_rate=self.sample_rate)

    def guarantee(self) -> dict[str, Any]:
        """Return the guarantee after the steps so far, and the assumptions that it rests on."""
        import opacus

        history = self._accountant.history
        spent = self._accountant.get_epsilon(delta=self.privacy.delta, alphas=ORDERS)
        known = self.privacy.noise_seed is not None
        return {
            **{key: x for key, x in asdict(self.privacy).items() if x is not None},
            "epsilon": float(spent) if history else 0.0,
            "epsilon_asked": self.privacy.epsilon,
            "patients": len(self._rows),
            "images": len(self._patient),
            "sample_rate": self.sample_rate,
            "noise_multiplier": self.noise_multiplier,
            "steps": sum(steps for _, _, steps in history),
            "neighbours": "one patient more or less",
            "accountant": f"opacus {opacus.__version__}, RDP",
            "seed_of_noise": "known: no guarantee against who knows it" if known else "forgotten",
        }

    def state(self) -> dict[str, Any]:
        """Return the state that a checkpoint keeps: a killed run goes on with the same account."""
        return {
            "secret": self._secret,
            "history": [[float(s), float(q), int(n)] for s, q, n in self._accountant.history],
        }

    def continue_from(self, state: dict[str, Any] | None) -> None:
        """Take over a checkpoint's secret and account.

        Raises:
            InputError: it has none.
        """
        if state is None:
            raise InputError(
                "the checkpoint lacks its privacy account", "--progress", "remove the folder"
            )
        self._secret = state["secret"]
        self._accountant.history = [(s, q, n) for s, q, n in state["history"]]
