"""The metrics of the stage, by family."""

from typing import Final

from workflow_scripts.common.measurement import Metric
from workflow_scripts.faithfulness.stress_measures import METRICS as STRESS

_IMAGES: Final = ("Test prompts", "Radiographs")
_PAIRS: Final = ("Pairs of images", "Radiographs")

FINDINGS_SEEN: Final = (
    Metric("judged_auroc", "AUROC of the judge", "higher", 3, _IMAGES),
    Metric("judged_auroc_ceiling", "Ceiling: on radiographs", "none", 3, _IMAGES),
    Metric("judged_share", "Share of the ceiling above chance", "higher", 2, _IMAGES),
    Metric("judged_ece", "Calibration error", "lower", 3, _IMAGES),
    Metric("judged_ece_ceiling", "Calibration error, on radiographs", "none", 3, _IMAGES),
)

ROUND_TRIP: Final = (
    Metric("round_trip_balanced", "Balanced accuracy of the report", "higher", 3, _IMAGES),
    Metric("round_trip_balanced_ceiling", "Ceiling: on radiographs", "none", 3, _IMAGES),
    Metric("round_trip_share", "Share of the ceiling above chance", "higher", 2, _IMAGES),
    Metric("round_trip_sensitivity", "Sensitivity of the report", "none", 3, _IMAGES),
    Metric("round_trip_sensitivity_ceiling", "Sensitivity, on radiographs", "none", 3, _IMAGES),
    Metric("round_trip_specificity", "Specificity of the report", "none", 3, _IMAGES),
    Metric("round_trip_specificity_ceiling", "Specificity, on radiographs", "none", 3, _IMAGES),
)

ANATOMY: Final = (
    Metric("ratio_distance", "Cardiothoracic ratio, distance", "lower", 3, _IMAGES),
    Metric("ratio_floor", "its floor", "none", 3, _IMAGES),
    Metric("lung_area_distance", "Lung area, distance", "lower", 3, _IMAGES),
    Metric("lung_area_floor", "its floor", "none", 3, _IMAGES),
    Metric("asymmetry_distance", "Asymmetry of the lungs, distance", "lower", 3, _IMAGES),
    Metric("asymmetry_floor", "its floor", "none", 3, _IMAGES),
    Metric("heart_inside_distance", "Heart within the lungs' field, distance", "lower", 3, _IMAGES),
    Metric("heart_inside_floor", "its floor", "none", 3, _IMAGES),
    Metric("implausible", "Implausible images (share)", "lower", 3, _IMAGES),
    Metric("implausible_radiographs", "False alarms on radiographs", "none", 3, _IMAGES),
    Metric("both_clavicles", "Both clavicles seen (share)", "none", 3, _IMAGES),
    Metric("ribs", "Ribs seen", "none", 1, _IMAGES),
    Metric("structures", "Structures seen", "none", 1, _IMAGES),
    Metric("structures_drawn", "Structures in any radiograph", "none", 0, _IMAGES),
    Metric("structures_lacking", "Structures lacking", "lower", 2, _IMAGES),
    Metric("structures_lacking_radiographs", "the same, on radiographs", "none", 2, _IMAGES),
    Metric("structures_asked", "Structures in 99% of radiographs", "none", 0, _IMAGES),
    Metric("ratio_difference", "Ratio with cardiomegaly less without", "none", 3, _IMAGES),
    Metric("ratio_difference_ceiling", "the same, on radiographs", "none", 3, _IMAGES),
    Metric("ratio_auroc", "AUROC of the ratio for cardiomegaly", "higher", 3, _IMAGES),
    Metric("ratio_auroc_ceiling", "the same, on radiographs", "none", 3, _IMAGES),
    Metric("ratio_share_of_ceiling", "Share of it above chance", "higher", 2, _IMAGES),
)

LABELLER: Final = (
    Metric("heart_dice_exact", "Dice of the heart", "higher", 3, _IMAGES),
    Metric("right_lung_dice_exact", "Dice of the right lung", "higher", 3, _IMAGES),
    Metric("left_lung_dice_exact", "Dice of the left lung", "higher", 3, _IMAGES),
    Metric("ratio_error_exact", "Mean error of the ratio", "lower", 3, _IMAGES),
    Metric("ratio_bias_exact", "its bias", "none", 3, _IMAGES),
)

TEXTURE: Final = (
    Metric("spectrum_distance", "Power spectrum, distance (dB)", "lower", 2, _IMAGES),
    Metric("high_frequencies", "Above 0.3 cycles a pixel (dB)", "none", 2, _IMAGES),
    Metric("noise", "Noise (dB)", "none", 2, _IMAGES),
    Metric("signal_dependence", "Noise's slope, difference (ppm)", "none", 1, _IMAGES),
    Metric("ms_ssim", "MS-SSIM of two images", "none", 3, _PAIRS),
    Metric("ms_ssim_radiographs", "the same, on radiographs", "none", 3, _PAIRS),
)

TOPOLOGY: Final = (
    Metric("organ_dice", "Dice of heart and lungs", "none", 3, _IMAGES),
    Metric("organ_dice_radiographs", "the same, on radiographs", "none", 3, _IMAGES),
    Metric("organ_dice_share", "Relative to radiographs (1 is as they are)", "none", 3, _IMAGES),
    Metric("ratio_error", "Error of the ratio", "none", 3, _IMAGES),
    Metric("ratio_error_radiographs", "the same, on radiographs", "none", 3, _IMAGES),
)

METRICS: Final = (*FINDINGS_SEEN, *ROUND_TRIP, *ANATOMY, *LABELLER, *TEXTURE, *TOPOLOGY, *STRESS)
