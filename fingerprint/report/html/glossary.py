"""What the words of a report mean, for readers who meet them for the first time."""

from fingerprint.report.words import MEANINGS

GLOSSARY: tuple[tuple[str, str], ...] = (
    ("Derived", MEANINGS["derived"] + " It does not say who came first, nor that anything was taken unlawfully."),
    ("Unrelated", MEANINGS["unrelated"]),
    ("Inconclusive", MEANINGS["inconclusive"]),
    (
        "Error at most",
        "If the suspect were unrelated, the chance that this procedure would call it derived is at most this.",
    ),
    ("Probe", "An image, made or chosen so that the owner's model and its copies answer it as no other model does."),
    ("Match", "The share of the probes asked to which the suspect gives the owner's label."),
    ("Reference", "A model known to be unrelated. How references answer the probes calibrates the error."),
    (
        "Calibration",
        "conformal: by the rank among the references, without further assumption. fitted: by a distribution that is "
        "fitted to the references, with an upper confidence limit. controls: by the rank among probe sets of the same "
        "make for other owners. declared: by a bound that the owner declared and signed.",
    ),
    ("Integrity", "Whether the function is still that of the release: intact, altered, or unknown."),
    (
        "Direction",
        "Whose verified timestamp is the earlier one. Unknown, unless both models carry one; either may be older.",
    ),
)
