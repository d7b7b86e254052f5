"""How many channels an embedding's layers have, without an image at hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from contrastive_sr.embeddings import Embedding, FourierDiscriminator, HaarDiscriminator, RGBDiscriminator


@pytest.mark.parametrize("kind", [HaarDiscriminator, FourierDiscriminator, RGBDiscriminator])
def test_channels_are_those_of_the_maps(kind: type[RGBDiscriminator]) -> None:
    embedding = kind(out_indices=range(5))
    before = copy.deepcopy(embedding.state_dict())
    assert embedding.channels() == [64, 64, 128, 128, 256]
    assert embedding.training
    assert all(torch.equal(value, before[name]) for name, value in embedding.state_dict().items())
    assert embedding.channels() == [x.shape[1] for x in embedding(torch.rand(1, 3, 64, 64))]


def test_the_trial_s_size_is_one_that_the_embedding_takes() -> None:
    class Picky(Embedding):
        minimum_size = 100
        multiple_of = 48

        def forward(self, images: Tensor) -> list[Tensor]:
            self.check_size(*images.shape[-2:])
            return [images, images.mean((2, 3))]

    assert Picky().channels() == [3, 3]
    assert Picky().double().channels() == [3, 3]
