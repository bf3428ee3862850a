"""Reduce the reference's golden arrays to those that the tests need: python tests/golden/compact.py path/to/golden."""

import re
import sys
from pathlib import Path

import numpy as np

# Patterns of the arrays to keep, for each file. Student features are multiples of 1/32 and stored as int16.
KEPT = {
    "transform_bboxes_edge_cases": [r".*"],
    "losses": [r".*"],
    "explicit_retina": [
        r"src_size|conv_weight|boxes_.*|explicit_.*|derived_explicit_.*|grad_c[LH]_[AZ]_wrt_conv_weight",
        r"(stu|tea)_feat_l\d|derived_fg_weight_.*|fg_weight_A_.*",
        r"grad_c[LH]_A_wrt_stu_feat_l[1-4]|dwt_.*|(high_freq|high_freq_cotangent|grad_high_freq)_.*l[2-4]",
    ],
    # Of the maps, only those from which few regions are pooled: the finest are large.
    "explicit_frcnn": [r"src_size|boxes_.*|derived_fg_weight_.*|stu_feat_l[12]"],
    "implicit_retina": [
        r"avg_factor_.*|implicit_(reg|cls)_per_level_.*|(stu|tea)_cls_l[2-4]|decoded_.*_l[2-4]|label_weights_.*_l[2-4]",
        r"reg_weights_l[2-4]|grad_total_A_wrt_stu_cls_l[2-4]",
        r"(tea|amp)_head\..*|(boxes|labels)_[AZ]_img\d|(label_weights|labels_target)_[AZ]_l[01]|labels_target_[AZ]_l[2-4]",
        r"valid_flags_.*|anchors_xyxy_l[34]|implicit_total_[AZ]|implicit_high_freq_total_[AZ]|grad_total_A_wrt_stu_feat_l[2-4]",
    ],
    "implicit_frcnn": [
        r"(full|high)_A_(stu|tea)_(cls|reg)|(full|high)_A_(loss_.*|avg_factor.*|grad_total_wrt_stu_(cls|reg))",
        r"tea_roi\..*|full_A_rois|full_A_total|full_A_grad_total_wrt_stu_feat_l1",
    ],
}


def main() -> None:
    source, target = Path(sys.argv[1]), Path(__file__).parent
    for name, patterns in KEPT.items():
        arrays = {}
        with np.load(source / f"{name}.npz") as file:
            for key in file.files:
                if any(re.fullmatch(pattern, key) for pattern in patterns):
                    array = file[key]
                    if key.startswith(("label_weights", "labels_target")):
                        array = array.astype(np.int8)
                    if key.startswith("stu_feat_l"):
                        assert np.array_equal(np.round(array * 32), array * 32)
                        array = np.round(array * 32).astype(np.int16)
                    arrays[key] = array
        np.savez_compressed(target / f"{name}.npz", **arrays)
        print(f"{name}: {len(arrays)} arrays, {(target / f'{name}.npz').stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
