"""The privacy metrics, declared for the tables that show them."""

from typing import Final

from workflow_scripts.common.measurement import Metric

_PROMPTS: Final = ("Prompts", "Training images")
_IMAGES: Final = ("Generated images", "Training images")
_PAIRS: Final = ("Rests on (pairs, images, prompts)", "Against pairs of two patients")
_HALVES: Final = ("Generated images", "Patients on each side")
_MEMBERS: Final = ("Members", "Non-members")
_CHANCE: Final = ("Prompts", "Pairs with other prompts' radiographs")
_PATIENTS: Final = ("Patients", "–")
_CANARIES: Final = ("Canaries", "Canaries not planted")

_ATTACKS: Final = {
    "loss": "Loss",
    "caption": "Caption",
    "frequency": "Frequency",
    "loss_calibrated": "Loss, calibrated",
    "caption_calibrated": "Caption, calibrated",
    "frequency_calibrated": "Frequency, calibrated",
    "samples": "Images alone",
}
_STATISTICS: Final = {"auc": "AUC", "tpr": "TPR at 1% FPR", "tpr_low": "TPR at 0.1% FPR"}

METRICS: Final = (
    # A prompt's images against the prompt's own radiograph (score.py).
    Metric("reid_mean_of_max", "Avg. Re-ID Score", "lower", 3, _PROMPTS),
    Metric("reid_sd_of_max", "Re-ID Score, sd over prompts", "none", 3, _PROMPTS),
    Metric("latent_mean_of_min", "Avg. Latent Distance", "higher", 3, _PROMPTS),
    Metric("latent_sd_of_min", "Latent Distance, sd over prompts", "none", 3, _PROMPTS),
    Metric("pixel_mean_of_min", "Avg. Pixel Distance", "higher", 1, _PROMPTS),
    Metric("pixel_sd_of_min", "Pixel Distance, sd over prompts", "none", 1, _PROMPTS),
    Metric("reid_max", "Max. Re-ID Score", "lower", 3, _PROMPTS),
    Metric("reid_count", "Count Re-ID > δ", "lower", 0, _PROMPTS),
    # Each image against every training radiograph (score_closest.py).
    Metric("closest_latent_mean", "Latent distance, mean", "higher", 3, _IMAGES),
    Metric("closest_latent_min", "Latent distance, least", "higher", 3, _IMAGES),
    Metric("authpct", "AuthPct", "higher", 1, _IMAGES),
    Metric("own_patient_latent", "Own patient closest", "lower", 3, _IMAGES),
    Metric("closest_reid_mean", "Re-ID score, mean", "lower", 3, _IMAGES),
    Metric("closest_reid_max", "Re-ID score, highest", "lower", 3, _IMAGES),
    Metric("closest_reid_share", "Share Re-ID > δ", "lower", 3, _IMAGES),
    Metric("own_patient_reid", "Own patient highest", "lower", 3, _IMAGES),
    # The re-identification network on held-out radiographs (score_attacker.py).
    Metric("reid_auc", "ROC AUC", "none", 3, _PAIRS),
    Metric("reid_auc_all_sites", "ROC AUC, all sites", "none", 3, _PAIRS),
    Metric("reid_true_positive_rate", "Found at δ", "none", 4, _PAIRS),
    Metric("reid_false_positive_rate", "False alarms at δ", "none", 4, _PAIRS),
    Metric("chance_share", "Share of prompts > δ by chance", "none", 4, _PAIRS),
    Metric("chance_count", "Count of prompts > δ by chance", "none", 1, _PAIRS),
    # Training captions against held-out ones (score_novelty.py).
    Metric("nearer_to_training", "Nearer to training", "lower", 3, _HALVES),
    Metric("nearer_to_held_out", "Nearer to held out", "none", 3, _HALVES),
    Metric("nearer_to_training_excess", "Excess", "lower", 3, _HALVES),
    # Alarms at 5% false alarms (score_lenses.py).
    Metric("reid_seen", "Re-ID score", "lower", 3, _CHANCE),
    Metric("latent_seen", "Latent distance", "lower", 3, _CHANCE),
    Metric("pixel_seen", "Pixel distance", "lower", 3, _CHANCE),
    Metric("mirrored_seen", "Pixel distance, mirrored", "lower", 3, _CHANCE),
    Metric("any_seen", "Any of them", "lower", 3, _CHANCE),
    # Attacks on membership (membership/values.py).
    *(
        Metric(f"member_{attack}_{key}", f"{label}, {statistic}", "lower", 3, _MEMBERS)
        for attack, label in _ATTACKS.items()
        for key, statistic in _STATISTICS.items()
    ),
    *(
        Metric(f"member_{score}_base_auc", f"{label}, base: AUC", "none", 3, _MEMBERS)
        for score, label in _ATTACKS.items()
        if score in ("loss", "caption", "frequency")
    ),
    # The main attack, by finding and by caption.
    Metric("member_auc", "AUC by finding", "lower", 3, _MEMBERS),
    Metric("member_marked_auc", "AUC, captions with ___", "lower", 3, _MEMBERS),
    Metric("member_unmarked_auc", "AUC, captions without ___", "lower", 3, _MEMBERS),
    Metric("member_marked_excess", "AUC, with less without", "lower", 3, _MEMBERS),
    Metric("member_long_auc", "AUC, long captions", "lower", 3, _MEMBERS),
    Metric("member_short_auc", "AUC, short captions", "lower", 3, _MEMBERS),
    Metric("member_long_excess", "AUC, long less short", "lower", 3, _MEMBERS),
    # The guarantee that a checkpoint states, and the attack on its canaries (score_guarantee.py).
    Metric("guarantee_epsilon", "Stated ε", "lower", 2, _PATIENTS),
    Metric("guarantee_delta", "at δ", "lower", None, _PATIENTS),
    Metric("audit_epsilon", "Shown ε, 95%", "lower", 2, _CANARIES),
    Metric("audit_epsilon_largest", "Largest ε to be shown", "none", 2, _CANARIES),
    Metric("audit_correct", "Guessed right", "lower", 3, _CANARIES),
    Metric("canary_exposure_0", "Exposure, never", "lower", 2, _CANARIES),
    Metric("canary_exposure_1", "Exposure, once", "lower", 2, _CANARIES),
    Metric("canary_exposure_4", "Exposure, 4 times", "lower", 2, _CANARIES),
    Metric("canary_exposure_16", "Exposure, 16 times", "lower", 2, _CANARIES),
)
