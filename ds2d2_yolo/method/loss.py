"""The four terms of DS2D2 and the response term: one scalar per term from features and ground truth."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import nn

from ds2d2_yolo.method.explicit import explicit_terms
from ds2d2_yolo.method.wavelet import band_size, filter_length, high_frequency_maps
from ds2d2_yolo.method.weight import density_independent_scale_weight, weight_and_divisor

TERMS = ("ex_low", "ex_high", "im_full", "im_high", "response")
"""The terms: explicit low and high frequency, implicit full and high frequency, and response (not in the paper)."""

WEIGHTS = ("confidence", "disw", "none")
"""Weights of the explicit terms: DISW times the teacher's confidence, DISW as in the paper, or no weight."""


@dataclass(frozen=True)
class Gains:
    """Factors of the terms. A term with gain 0 is not computed.

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

    def only(self, terms: Container[str]) -> Gains:
        """Return the gains of selected terms, and 0 for the others.

        Args:
            terms (Container[str]): Names of the selected terms.

        Returns:
            (Gains): The gains.

        Example:
            >>> Gains(ex_low=1.0, im_full=2.0).only(["ex_low"]).active
            ('ex_low',)
        """
        return Gains(**{name: gain if name in terms else 0.0 for name, gain in asdict(self).items()})


@dataclass(frozen=True)
class TappedMaps:
    """Channels of the tapped maps, and the terms that use each map.

    Args:
        student (tuple[int, ...]): Student channels of every tapped map.
        teacher (tuple[int, ...]): Teacher channels of every tapped map.
        explicit (tuple[int, ...]): Indices of the maps for the explicit terms.
        head (tuple[int, ...]): Indices of the maps that are inputs of the heads, in the heads' order.

    Raises:
        ValueError: If student and teacher have different numbers of maps, or an index is out of range.

    Example:
        >>> TappedMaps.of_neck((64, 128, 256), (128, 256, 512)).head
        (0, 1, 2)
    """

    student: tuple[int, ...]
    teacher: tuple[int, ...]
    explicit: tuple[int, ...]
    head: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.student) != len(self.teacher):
            raise ValueError(f"the student has {len(self.student)} maps, the teacher has {len(self.teacher)}")
        if any(not 0 <= index < len(self.student) for index in (*self.explicit, *self.head)):
            raise ValueError(f"explicit {self.explicit} and head {self.head} must index {len(self.student)} maps")

    @classmethod
    def of_neck(cls, student: Sequence[int], teacher: Sequence[int]) -> TappedMaps:
        """Return the usual roles: the inputs of the heads are also the maps for the explicit terms."""
        every = tuple(range(len(student)))
        return cls(tuple(student), tuple(teacher), explicit=every, head=every)


class HeadComparison:
    """Base class for comparing predictions. Subclasses implement the methods whose terms have a gain.

    Example:
        >>> class Logits(HeadComparison):
        ...     def __init__(self, head):
        ...         self.head = head
        ...
        ...     def full(self, student_maps, teacher_maps):
        ...         pairs = zip(student_maps, teacher_maps, strict=True)
        ...         return sum((self.head(x) - self.head(y)).square().mean() for x, y in pairs)
        >>> Logits(nn.Identity()).full([torch.ones(1, 1, 2, 2)], [torch.zeros(1, 1, 2, 2)]).item()
        1.0
    """

    def full(self, student_maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compare predictions of the teacher's frozen head from two feature pyramids: a scalar, for `im_full`."""
        raise ValueError("the term im_full has a gain: LossInputs needs heads= with a method full")

    def high(self, student_maps: Sequence[torch.Tensor], teacher_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Compare predictions of the amplifier from two pyramids of high-frequency maps: a scalar, for `im_high`."""
        raise ValueError("the term im_high has a gain: LossInputs needs heads= with a method high")

    def response(self) -> torch.Tensor:
        """Compare the student's own predictions with the teacher's: a scalar, for `response`."""
        raise ValueError("the term response has a gain: LossInputs needs heads= with a method response")


@dataclass(frozen=True, eq=False)
class LossInputs:
    """Inputs of the terms for one batch.

    Args:
        student_maps (Sequence[torch.Tensor]): Tapped student maps (B, Cs_l, H_l, W_l).
        teacher_maps (Sequence[torch.Tensor]): Tapped teacher maps (B, Ct_l, H_l, W_l), without gradient.
        boxes (torch.Tensor): Ground-truth boxes of the batch: (N, 4) as xyxy in pixels of the padded input, or oriented
            boxes (N, 5), as for `density_independent_scale_weight`.
        batch_index (torch.Tensor): Index of every box's image (N,).
        input_size (tuple[int, int]): Height and width of the padded input, in pixels.
        confidence (Sequence[torch.Tensor] | None): The teacher's confidence (B, 1, h_l, w_l) in [0, 1] for every map of
            the explicit terms. Needed for `weight="confidence"`.
        heads (HeadComparison): Comparison of predictions, for the terms `im_full`, `im_high` and `response`.
    """

    student_maps: Sequence[torch.Tensor]
    teacher_maps: Sequence[torch.Tensor]
    boxes: torch.Tensor
    batch_index: torch.Tensor
    input_size: tuple[int, int]
    confidence: Sequence[torch.Tensor] | None = None
    heads: HeadComparison = field(default_factory=HeadComparison)


class DS2D2Loss(nn.Module):
    """The terms, with adapters from the student's channels to the teacher's.

    An adapter (phi) is a 1x1 convolution without bias. The explicit terms compare adapted maps. The implicit terms use
    the student's own maps if the channels are equal, as in the reference, and otherwise adapted maps. The response term
    needs no maps.

    Args:
        maps (TappedMaps): Channels and roles of the tapped maps.
        gains (Gains): Factors of the terms.
        wavelet (str): Name of an orthogonal wavelet of PyWavelets.
        weight (str): Weight of the explicit terms, one of `WEIGHTS`.
        shared_adapter (bool): Whether all maps share one adapter, as in the reference. All levels must have the same
            channels.

    Attributes:
        adapters (nn.ModuleList): One module per tapped map. They are trained together with the student.
        gains (Gains): The factors. They can be replaced by others with the same active terms.

    Raises:
        ValueError: If wavelet or weight is not supported, or levels with a shared adapter have different channels.

    Example:
        >>> loss = DS2D2Loss(TappedMaps.of_neck((8,), (16,)), Gains(ex_low=1.0, ex_high=1.0))
        >>> maps = [torch.rand(2, 8, 16, 16)], [torch.rand(2, 16, 16, 16)]
        >>> sorted(loss(LossInputs(*maps, boxes=torch.empty(0, 4), batch_index=torch.empty(0), input_size=(128, 128))))
        ['ex_high', 'ex_low']
    """

    def __init__(
        self,
        maps: TappedMaps,
        gains: Gains,
        wavelet: str = "haar",
        weight: str = "disw",
        shared_adapter: bool = False,
    ) -> None:
        super().__init__()
        filter_length(wavelet)
        if weight not in WEIGHTS:
            raise ValueError(f"weight={weight}: expected one of {', '.join(WEIGHTS)}")
        self.maps = maps
        self.gains = gains
        self.wavelet = wavelet
        self.weight = weight
        explicit = maps.explicit if gains.ex_low or gains.ex_high else ()
        self.adapters = _make_adapters(maps, explicit, shared_adapter)

    def forward(self, inputs: LossInputs, gains: Gains | None = None) -> dict[str, torch.Tensor]:
        """Return the terms whose gain is not 0, each multiplied by its gain.

        Args:
            inputs (LossInputs): Maps, ground truth and heads of one batch.
            gains (Gains | None): Factors for this batch, for example to omit terms. None means `gains` of the loss.

        Returns:
            (dict[str, torch.Tensor]): The scalars, by name of the term.

        Raises:
            ValueError: If inputs of a term with a gain are missing, or shapes do not match.
        """
        gains = self.gains if gains is None else gains
        adapted = [adapter(x) for adapter, x in zip(self.adapters, inputs.student_maps, strict=True)]
        terms: dict[str, torch.Tensor] = {}
        if gains.ex_low or gains.ex_high:
            terms["ex_low"], terms["ex_high"] = self._explicit(inputs, adapted)
        if gains.im_full or gains.im_high:
            student_maps, teacher_maps = self._head_maps(inputs, adapted)
            if gains.im_full:
                terms["im_full"] = inputs.heads.full(student_maps, teacher_maps)
            if gains.im_high:
                high = [high_frequency_maps(maps, self.wavelet) for maps in (student_maps, teacher_maps)]
                terms["im_high"] = inputs.heads.high(*high)
        if gains.response:
            terms["response"] = inputs.heads.response()
        return {name: gain * terms[name] for name, gain in asdict(gains).items() if gain}

    def _explicit(self, inputs: LossInputs, adapted: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the low-frequency and the high-frequency explicit term: sums over the explicit maps."""
        maps, explicit = inputs.student_maps, self.maps.explicit
        grids = [band_size(maps[i].shape[2], maps[i].shape[3], self.wavelet) for i in explicit]
        disws = density_independent_scale_weight(
            inputs.boxes, inputs.batch_index, maps[0].shape[0], inputs.input_size, grids
        )
        confidences = [None] * len(explicit) if inputs.confidence is None else inputs.confidence
        terms = []
        for i, disw, confidence in zip(explicit, disws, confidences, strict=True):
            weight, divisor = weight_and_divisor(self.weight, disw, confidence)
            terms.append(explicit_terms(adapted[i], inputs.teacher_maps[i], weight, self.wavelet, divisor))
        low, high = zip(*terms, strict=True)
        return torch.stack(low).sum(), torch.stack(high).sum()

    def _head_maps(
        self, inputs: LossInputs, adapted: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Return the head's inputs from student (own maps if the channels are equal, otherwise adapted) and teacher."""
        maps = self.maps
        student_maps = [inputs.student_maps[i] if maps.student[i] == maps.teacher[i] else adapted[i] for i in maps.head]
        return student_maps, [inputs.teacher_maps[i] for i in maps.head]


def _make_adapters(maps: TappedMaps, explicit: tuple[int, ...], shared: bool) -> nn.ModuleList:
    """Return one adapter per map: a convolution if a term needs one, otherwise the identity."""
    pairs = list(zip(maps.student, maps.teacher, strict=True))
    if shared:
        if len(set(pairs)) != 1:
            raise ValueError(f"one shared adapter needs the same channels on every level, got {pairs}")
        return nn.ModuleList([nn.Conv2d(*pairs[0], kernel_size=1, bias=False)] * len(pairs))
    return nn.ModuleList(
        nn.Conv2d(source, target, kernel_size=1, bias=False) if index in explicit or source != target else nn.Identity()
        for index, (source, target) in enumerate(pairs)
    )
