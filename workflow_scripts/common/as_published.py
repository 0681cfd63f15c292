"""The two evaluation protocols, and every difference between them.

`sound` is the default protocol. `as_published` repeats the official implementation's evaluation
where it differs, so that its results compare with the published numbers. The protocol governs
evaluation only, which includes the downstream networks. It never changes how the text-to-image
models are trained.
"""

from dataclasses import dataclass, fields
from typing import Final

from workflow_scripts.common.errors import InputError

PROTOCOLS: Final = ("sound", "as_published")


@dataclass(frozen=True)
class Deviations:
    """The switches of one protocol; all of them are False under `sound`.

    Attributes:
        fidelity_squash_299: images are squashed to 299 x 299 (aspect lost) before an encoder's own
            preprocessing.
        fidelity_reference_of_all_prompts: the reference contains the radiograph of every prompt,
            with or without a generated image; `sound` uses only the prompts that the model
            answered.
        both_wordings: some test images have two wordings of their report in the test set, the
            radiologist's and one rewritten by GPT-4. The images generated from both are scored;
            `sound` scores only the image generated from the caption.
        kid_pairs_within_patients: KID includes pairs of images of one patient, so it grows as the
            number of patients shrinks; `sound` compares images of different patients only.
        privacy_squash_512: images are squashed to 512 x 512 (aspect lost) for latent and pixel
            distance; `sound` resizes the shorter side and crops the centre.
        reid_without_normalisation: the re-identification network sees 224-pixel images in [0, 1];
            `sound` prepares images as in its training: 256 pixels, ImageNet mean and standard
            deviation.
        pixel_wrapped_uint8: the pixel difference wraps modulo 256.
        pixel_last_image_only: the last of a prompt's ten images is compared ten times.
        classification_random_validation: validation images are drawn at random, not by patient.
        classification_horizontal_flip: training images are flipped at random.
        classification_squash: images are squashed to a square (aspect lost); `sound` resizes the
            shorter side and crops the centre.
        report_epochs_by_setting: a report generator's second stage takes 3 epochs on real images,
            10 on real and synthetic ones, 5 on synthetic ones; `sound` takes the config's number
            for all.
        report_synthetic_from_base: a report generator trained on synthetic images alone starts from
            the language model without LLaVA-Rad's adapter, and from LLaVA-Rad's pretrained
            projector; `sound` continues the released LLaVA-Rad, as the paper says.
        report_stored_question: the second stage uses the question of the annotations, without the
            indication, and only the test uses LLaVA-Rad's question; `sound` uses LLaVA-Rad's in
            training and test.
    """

    fidelity_squash_299: bool = False
    fidelity_reference_of_all_prompts: bool = False
    both_wordings: bool = False
    kid_pairs_within_patients: bool = False
    privacy_squash_512: bool = False
    reid_without_normalisation: bool = False
    pixel_wrapped_uint8: bool = False
    pixel_last_image_only: bool = False
    classification_random_validation: bool = False
    classification_horizontal_flip: bool = False
    classification_squash: bool = False
    report_epochs_by_setting: bool = False
    report_synthetic_from_base: bool = False
    report_stored_question: bool = False


_DEVIATIONS: Final = {
    "sound": Deviations(),
    "as_published": Deviations(*[True] * len(fields(Deviations))),
}


def deviations(protocol: str) -> Deviations:
    """Return the switches of a protocol.

    Raises:
        InputError: an unknown protocol.
    """
    if protocol not in _DEVIATIONS:
        raise InputError(f"unknown protocol {protocol!r}", None, f"use one of {PROTOCOLS}")
    return _DEVIATIONS[protocol]
