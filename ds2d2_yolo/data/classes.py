"""Classes of the published data sets, numbered as in the reference's configurations."""

from __future__ import annotations

DIOR_CLASSES: tuple[str, ...] = (
    "Expressway-Service-area",
    "Expressway-toll-station",
    "airplane",
    "airport",
    "baseballfield",
    "basketballcourt",
    "bridge",
    "chimney",
    "dam",
    "golffield",
    "groundtrackfield",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storagetank",
    "tenniscourt",
    "trainstation",
    "vehicle",
    "windmill",
)
"""The 20 classes of DIOR and DIOR-R."""

DOTA_CLASSES: tuple[str, ...] = (
    "small-vehicle",
    "large-vehicle",
    "plane",
    "storage-tank",
    "ship",
    "harbor",
    "ground-track-field",
    "soccer-ball-field",
    "tennis-court",
    "swimming-pool",
    "baseball-diamond",
    "roundabout",
    "basketball-court",
    "bridge",
    "helicopter",
)
"""The 15 classes of DOTA v1.0. Classes of later versions are numbered after these."""

DOTA_ADDED_CLASSES: dict[str, tuple[str, ...]] = {
    "1.0": (),
    "1.5": ("container-crane",),
    "2.0": ("container-crane", "airport", "helipad"),
}
"""The classes that each version of DOTA adds to v1.0."""
