"""The golden arrays, as tensors."""

from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """Arrays of one golden file as tensors, with student features in their original scale."""

    def __init__(self, name: str) -> None:
        self._file = np.load(GOLDEN / f"{name}.npz")
        self.names = self._file.files

    def __getitem__(self, key: str) -> torch.Tensor:
        array = self._file[key]
        return torch.from_numpy(array / np.float32(32) if array.dtype == np.int16 else array)

    def scalar(self, key: str) -> float:
        return float(self._file[key])

    def boxes(self, case: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (N, 4) and image indices (N,) of a case of two images."""
        images = [self[f"boxes_{case}_img{i}"].reshape(-1, 4) for i in range(2)]
        index = torch.cat([torch.full((len(boxes),), i) for i, boxes in enumerate(images)])
        return torch.cat(images), index
