"""The four terms of DS2D2 and the response term: from features and ground truth to one scalar per term."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from ds2d2_yolo.method.explicit import explicit_terms
from ds2d2_yolo.method.wavelet import band_size, filter_bank, high_frequency_maps
from ds2d2_yolo.method.weight import density_independent_scale_weight, focus_weight

_EPSILON = 1e-9  # the sum of weights, where the teacher is sure of nothing

TERMS = ("ex_low", "ex_high", "im_full", "im_high", "response")
"""The terms: explicit low- and high-frequency, implicit full- and high-frequency; response is not the paper's."""

WEIGHTS = ("confidence", "disw", "none")
"""Weights of the explicit terms: DISW times the teacher's confidence, DISW as in the paper, every cell alike."""

Comparison = Callable[[Sequence[torch.Tensor], Sequence[torch.Tensor]], torch.Tensor]
"""Compares two pyramids (student's, teacher's) through a frozen head and returns a scalar."""

Response = Callable[[], torch.Tensor]
"""Compares what the student itself predicts with what the teacher predicts, and returns a scalar."""


@dataclass(frozen=True)
class Gains:
    """Factors of the terms; a term with gain 0 is not computed.

    Args:
        ex_low (float): Explicit, low frequency.
        ex_high (float): Explicit, high frequency.
        im_full (float): Implicit, through the teacher's head.
        im_high (float): Implicit, through the high-frequency amplifier.
        response (float): The student's own predictions against the teacher's.

    Example:
        >>> Gains(im_full=2.0).active
        ('im_full',)
    """

    ex_low: float = 0.0
    ex_high: float = 0.0
    im_full: float = 0.0
    im_high: float = 0.0
    response: float = 0.0

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the terms whose gain is not 0."""
        return tuple(name for name, gain in asdict(self).items() if gain != 0)


@dataclass(frozen=True)
class Levels:
    """Channels of the tapped maps, and which of them serve which terms.

    Args:
        student (tuple[int, ...]): Student channels of every tapped map.
        teacher (tuple[int, ...]): Teacher channels of every tapped map.
        explicit (tuple[int, ...]): Indices of the maps that the explicit terms compare.
        head (tuple[int, ...]): Indices of the maps that the heads take, in the heads' order.

    Raises:
        ValueError: If student and teacher have different numbers of maps, or an index is out of range.

    Example:
        >>> Levels.of_neck((64, 128, 256), (128, 256, 512)).head
        (0, 1, 2)
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.student) != len(self.teacher):
            raise ValueError(f"the student has {len(self.student)} maps, the teacher {len(self.teacher)}")
        if any(not 0 <= index < len(self.student) for index in (*self.explicit, *self.head)):
            raise ValueError(f"explicit {self.explicit} and head {self.head} must index {len(self.student)} maps")

    @classmethod
    def of_neck(cls, student: Sequence[int], teacher: Sequence[int]) -> Levels:
        """Return the usual arrangement: the maps that the heads take serve the explicit terms too."""
        every = tuple(range(len(student)))
        return cls(tuple(student), tuple(teacher), explicit=every, head=every)


class DS2D2Loss(nn.Module):
    """The terms, and the adapters that bring the student's maps to the teacher's channels.

    An adapter (phi) is a 1x1 convolution without bias. The explicit terms compare adapted maps. The implicit terms take
    the student's own maps where the channels agree, as the reference does, and adapted ones where they differ. The
    response term needs no maps: the student's own head has seen them.

    Args:
        levels (Levels): Channels and roles of the tapped maps.
        gains (Gains): Factors of the terms.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        weight (str): Weight of the explicit terms, one of `WEIGHTS`.
        shared_adapter (bool): Use one adapter for all maps, as the reference does where all levels have the same
            channels.

    Attributes:
        adapters (nn.ModuleList): One module per tapped map: all that distillation trains besides the student.
        gains (Gains): The factors; they may be replaced by others with the same terms active.

    Raises:
        ValueError: If wavelet or weight is unknown, or one shared adapter does not fit all maps.

    Example:
        >>> loss = DS2D2Loss(Levels.of_neck((8,), (16,)), Gains(ex_low=1.0, ex_high=1.0))
        >>> student, teacher = [torch.rand(2, 8, 16, 16)], [torch.rand(2, 16, 16, 16)]
        >>> terms = loss(student, teacher, torch.empty(0, 4), torch.empty(0), (128, 128))
        >>> sorted(terms)
        ['ex_high', 'ex_low']
    """

    def __init__(
        self,
        levels: Levels,
        gains: Gains,
        wavelet: str = "haar",
        weight: str = "disw",
        shared_adapter: bool = False,
    ) -> None:
        super().__init__()
        filter_bank(wavelet)
        if weight not in WEIGHTS:
            raise ValueError(f"weight={weight}: expected one of {', '.join(WEIGHTS)}")
        self.levels = levels
        self.gains = gains
        self.wavelet = wavelet
        self.weight = weight
        explicit = levels.explicit if gains.ex_low or gains.ex_high else ()
        self.adapters = _make_adapters(levels, explicit, shared_adapter)

    def forward(
        self,
        student: Sequence[torch.Tensor],
        teacher: Sequence[torch.Tensor],
        boxes: torch.Tensor,
        batch_index: torch.Tensor,
        input_size: tuple[int, int],
        full: Comparison | None = None,
        high: Comparison | None = None,
        confidence: Sequence[torch.Tensor] | None = None,
        response: Response | None = None,
    ) -> dict[str, torch.Tensor]:
        """Return the terms whose gain is not 0, each multiplied by its gain.

        Args:
            student (Sequence[torch.Tensor]): Student maps (B, Cs_l, H_l, W_l), as tapped.
            teacher (Sequence[torch.Tensor]): Teacher maps (B, Ct_l, H_l, W_l), without gradient.
            boxes (torch.Tensor): Ground-truth boxes of the batch: (N, 4) as xyxy pixels of the padded input, or (N, 5)
                oriented, as for `density_independent_scale_weight`.
            batch_index (torch.Tensor): Index of the image of every box (N,).
            input_size (tuple[int, int]): Height and width of the padded input, in pixels.
            full (Comparison | None): Comparison through the teacher's head, for `im_full`.
            high (Comparison | None): Comparison through the high-frequency amplifier, for `im_high`; it is given the
                high-frequency maps.
            confidence (Sequence[torch.Tensor] | None): The teacher's confidence (B, 1, h_l, w_l) in [0, 1] at every map
                that the explicit terms compare, for `weight="confidence"`.
            response (Response | None): Comparison of the two models' own predictions, for `response`.

        Returns:
            (dict[str, torch.Tensor]): Scalar by name of the term.

        Raises:
            ValueError: If a term has a gain but no comparison, or shapes do not fit together.
        """
        gains, levels = self.gains, self.levels
        comparisons = {"im_full": ("full", full), "im_high": ("high", high), "response": ("response", response)}
        for term, (name, comparison) in comparisons.items():
            if term in gains.active and comparison is None:
                raise ValueError(f"the term {term} has a gain but no comparison '{name}='")
        adapted = [adapter(x) for adapter, x in zip(self.adapters, student, strict=True)]
        terms: dict[str, torch.Tensor] = {}

        if gains.ex_low or gains.ex_high:
            weights = self.explicit_weights(student, boxes, batch_index, input_size, confidence)
            pairs = [
                explicit_terms(adapted[i], teacher[i], weight, self.wavelet, avg_factor)
                for i, (weight, avg_factor) in zip(levels.explicit, weights, strict=True)
            ]
            low, detail = (torch.stack(values).sum() for values in zip(*pairs, strict=True))
            if gains.ex_low:
                terms["ex_low"] = gains.ex_low * low
            if gains.ex_high:
                terms["ex_high"] = gains.ex_high * detail

        if gains.im_full or gains.im_high:
            seen = [adapted[i] if levels.student[i] != levels.teacher[i] else student[i] for i in levels.head]
            known = [teacher[i] for i in levels.head]
            if gains.im_full and full is not None:
                terms["im_full"] = gains.im_full * full(seen, known)
            if gains.im_high and high is not None:
                seen, known = high_frequency_maps(seen, self.wavelet), high_frequency_maps(known, self.wavelet)
                terms["im_high"] = gains.im_high * high(seen, known)

        if gains.response and response is not None:
            terms["response"] = gains.response * response()
        return terms

    def explicit_weights(
        self,
        student: Sequence[torch.Tensor],
        boxes: torch.Tensor,
        batch_index: torch.Tensor,
        input_size: tuple[int, int],
        confidence: Sequence[torch.Tensor] | None = None,
    ) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the weights of the explicit terms, and what the weighted sums over cells are divided by.

        Args:
            student (Sequence[torch.Tensor]): Student maps, as for the forward pass; their shapes alone matter.
            boxes (torch.Tensor): As for the forward pass.
            batch_index (torch.Tensor): As for the forward pass.
            input_size (tuple[int, int]): As for the forward pass.
            confidence (Sequence[torch.Tensor] | None): As for the forward pass.

        Returns:
            (list[tuple[torch.Tensor, torch.Tensor | None]]): Per explicit map the weight (B, 1, h, w) on the grid of
                its bands, and its sum, or None where the terms are means over all cells.

        Raises:
            ValueError: If the weight needs the teacher's confidence and there is none.
        """
        explicit = self.levels.explicit
        grids = [band_size(student[i].shape[2], student[i].shape[3], self.wavelet) for i in explicit]
        if self.weight == "none":
            return [(boxes.new_ones(student[0].shape[0], 1, *grid, dtype=torch.float32), None) for grid in grids]
        weights = density_independent_scale_weight(boxes, batch_index, student[0].shape[0], input_size, grids)
        if self.weight == "disw":
            return [(weight, None) for weight in weights]
        if confidence is None:
            raise ValueError("weight=confidence needs the teacher's confidence 'confidence='")
        focused = [focus_weight(*pair) for pair in zip(weights, confidence, strict=True)]
        return [(weight, weight.sum().clamp(min=_EPSILON)) for weight in focused]


def _make_adapters(levels: Levels, explicit: tuple[int, ...], shared: bool) -> nn.ModuleList:
    """Return one adapter per map: a convolution where a term needs one, else the identity."""
    pairs = list(zip(levels.student, levels.teacher, strict=True))
    if shared:
        if len(set(pairs)) != 1:
            raise ValueError(f"one shared adapter needs the same channels on every level, got {pairs}")
        return nn.ModuleList([nn.Conv2d(*pairs[0], kernel_size=1, bias=False)] * len(pairs))
    return nn.ModuleList(
        nn.Conv2d(source, target, kernel_size=1, bias=False) if index in explicit or source != target else nn.Identity()
        for index, (source, target) in enumerate(pairs)
    )
