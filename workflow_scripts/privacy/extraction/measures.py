"""The metrics of the extraction attack, declared for the tables that show them."""

from typing import Final

from workflow_scripts.common.measurement import Metric

_CAPTIONS: Final = ("Captions", "Training images")
_EXTRACTED: Final = ("Captions with an alarm", "Training images")
_IMAGES: Final = ("Generated images", "Training images")
_GROUPS: Final = ("Captions", "Groups of held-out radiographs")

METRICS: Final = (
    Metric("extracted_share", "Extracted (share of captions)", "lower", 3, _CAPTIONS),
    Metric("extracted_count", "Extracted (captions)", "lower", 0, _CAPTIONS),
    Metric("extracted_by_chance", "By chance (captions)", "none", 1, _CAPTIONS),
    Metric("patients_named", "Patients named", "lower", 0, _EXTRACTED),
    Metric("own_patient_named", "Of the prompt's patient (share)", "lower", 3, _EXTRACTED),
    Metric("images_alarmed", "Images with an alarm (share)", "lower", 3, _IMAGES),
    Metric("pixel_whole_extracted", "Pixels, whole image", "lower", 3, _CAPTIONS),
    Metric("latent_whole_extracted", "RAD-DINO, whole image", "lower", 3, _CAPTIONS),
    Metric("pixel_patch_extracted", "Pixels, one patch", "lower", 3, _CAPTIONS),
    Metric("latent_patch_extracted", "RAD-DINO, one patch", "lower", 3, _CAPTIONS),
    Metric("extracted_mirrored", "Mirrored (share of captions)", "lower", 3, _CAPTIONS),
    Metric("extracted_moved", "Moved or resized (share of captions)", "lower", 3, _CAPTIONS),
    Metric("captions_repeated", "Captions that repeat an image", "lower", 3, _GROUPS),
)
