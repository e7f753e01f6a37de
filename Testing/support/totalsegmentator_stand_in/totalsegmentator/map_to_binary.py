"""Label values of some structures."""

LOBES = ("upper_lobe_left", "lower_lobe_left", "upper_lobe_right", "middle_lobe_right", "lower_lobe_right")
class_map = {
    "total": {1: "spleen", **{10 + n: f"lung_{lobe}" for n, lobe in enumerate(LOBES)}, 51: "heart"},
    "body": {1: "body_trunc", 2: "body_extremities"},
    "heartchambers_highres": {1: "heart_myocardium", 2: "heart_atrium_left"},
}
