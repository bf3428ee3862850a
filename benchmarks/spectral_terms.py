"""Compare the time of the method's parts with straightforward versions, interleaved in one run.

    python benchmarks/spectral_terms.py

Sizes are those of the reference on DIOR: 800 x 800 input, batch 2, five levels of 256 channels (strides 8 to 128). The
straightforward versions are:

- weight: a loop over boxes that paints the weight for every channel
- explicit terms: two transforms by convolution, then subtraction, square and weight
- decomposition: by convolution with a stride of 2, as in the reference
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F

from ds2d2_yolo.method import decompose, density_independent_scale_weight, explicit_terms

SIZE, BATCH, CHANNELS = 800, 2, 256
MAPS = [math.ceil(SIZE / stride) for stride in (8, 16, 32, 64, 128)]
GRIDS = [((side + 1) // 2, (side + 1) // 2) for side in MAPS]


def weight_by_loop(boxes: torch.Tensor, batch_index: torch.Tensor) -> list[torch.Tensor]:
    """Paint the weight box by box, for every channel."""
    weights = []
    for height, width in GRIDS:
        weight = torch.ones(BATCH, CHANNELS, height, width)
        for (x1, y1, x2, y2), image in zip(boxes.tolist(), batch_index.tolist(), strict=True):
            left, right = max(0, math.floor(x1 * width / SIZE)), min(width - 1, math.ceil(x2 * width / SIZE))
            top, bottom = max(0, math.floor(y1 * height / SIZE)), min(height - 1, math.ceil(y2 * height / SIZE))
            cells = (right - left + 1) * (bottom - top + 1)
            weight[int(image), :, top : bottom + 1, left : right + 1] += 1 / cells
        weights.append(weight)
    return weights


def haar_by_convolution(x: torch.Tensor) -> torch.Tensor:
    """Return the bands LL, LH, HL and HH (B, C, 4, h, w) of maps (B, C, H, W)."""
    kernel = torch.tensor([[[1, 1], [1, 1]], [[1, 1], [-1, -1]], [[1, -1], [1, -1]], [[1, -1], [-1, 1]]]) / 2
    x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
    return F.conv2d(x, kernel[:, None].repeat(CHANNELS, 1, 1, 1), stride=2, groups=CHANNELS).unflatten(1, (-1, 4))


def explicit_by_two_transforms(
    student: torch.Tensor, teacher: torch.Tensor, weight: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Transform both maps, then compare the coefficients with a weight for every channel."""
    errors = (haar_by_convolution(student) - haar_by_convolution(teacher)).square() * weight.unsqueeze(2)
    return errors[:, :, 0].mean(), errors[:, :, 1:].mean()


def interleaved(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Run the functions in turn, and return the milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat:  # the first is a warm-up
                times[name].append(1000 * (time.perf_counter() - start))
    return times


def report(title: str, times: dict[str, list[float]], base: str) -> None:
    """Print medians, spread, and ratios to `base`, pair by pair."""
    print(f"\n{title}\n{'':<28}{'median ms':>11}{'min':>9}{'max':>9}{'ratio':>9}")
    for name, values in times.items():
        ratio = statistics.median(b / a for a, b in zip(values, times[base], strict=True))
        print(f"{name:<28}{statistics.median(values):>11.3f}{min(values):>9.3f}{max(values):>9.3f}{ratio:>8.1f}x")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)

    ours: dict[str, Callable[[], object]] = {}
    loops: dict[str, Callable[[], object]] = {}
    for count in (5, 50, 500):
        corner = torch.rand(BATCH * count, 2) * 500
        boxes = torch.cat([corner, corner + 20 + 280 * torch.rand(BATCH * count, 2)], 1)
        index = torch.arange(BATCH).repeat_interleave(count)
        reference = weight_by_loop(boxes, index)
        for weight, expected in zip(
            density_independent_scale_weight(boxes, index, BATCH, (SIZE, SIZE), GRIDS), reference, strict=True
        ):
            torch.testing.assert_close(weight.expand_as(expected), expected, rtol=1e-4, atol=1e-4)
        ours[f"DISW, {count} boxes"] = partial(
            density_independent_scale_weight, boxes, index, BATCH, (SIZE, SIZE), GRIDS
        )
        loops[f"loop, {count} boxes"] = partial(weight_by_loop, boxes, index)
    times = interleaved(ours | loops, options.repeats)
    for count in (5, 50, 500):
        pair = {name: times[name] for name in (f"DISW, {count} boxes", f"loop, {count} boxes")}
        report(f"DISW, {count} boxes per image", pair, f"loop, {count} boxes")
    growth = [b / a for a, b in zip(times["DISW, 5 boxes"], times["DISW, 500 boxes"], strict=True)]
    print(f"\nDISW at 500 boxes takes {statistics.median(growth):.2f}x its time at 5")

    student = [torch.randn(BATCH, CHANNELS, side, side, requires_grad=True) for side in MAPS]
    teacher = [torch.randn(BATCH, CHANNELS, side, side) for side in MAPS]
    weights = [weight[:, :1].contiguous() for weight in reference]

    def fast() -> list[float]:
        terms = [explicit_terms(s, t, w) for s, t, w in zip(student, teacher, weights, strict=True)]
        torch.stack([low + high for low, high in terms]).sum().backward()
        return [float(low.detach() + high.detach()) for low, high in terms]

    def straightforward() -> list[float]:
        terms = [explicit_by_two_transforms(s, t, w) for s, t, w in zip(student, teacher, reference, strict=True)]
        torch.stack([low + high for low, high in terms]).sum().backward()
        return [float(low.detach() + high.detach()) for low, high in terms]

    torch.testing.assert_close(fast(), straightforward(), rtol=1e-4, atol=1e-4)
    times = interleaved({"one transform (ours)": fast, "two transforms": straightforward}, options.repeats)
    report("explicit terms, forward and backward", times, "two transforms")

    def haar() -> None:
        for x in student:
            torch.autograd.backward(list(bands := decompose(x)), [b.detach() for b in bands])

    def convolution() -> None:
        for x in student:
            bands = haar_by_convolution(x)
            bands.backward(bands.detach())

    times = interleaved({"sums and differences (ours)": haar, "convolution": convolution}, options.repeats)
    report("Haar decomposition, forward and backward", times, "convolution")


if __name__ == "__main__":
    main()
