"""BasicSR's RCAN as a generator for MMagic, which has none of its own."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from contrastive_sr.hosts.basicsr.host import import_basicsr
from contrastive_sr.hosts.mmagic.registry import MODELS


@MODELS.register_module(name="RCAN")
def rcan(
    num_in_ch: int = 3,
    num_out_ch: int = 3,
    num_feat: int = 64,
    num_group: int = 10,
    num_block: int = 16,
    squeeze_factor: int = 16,
    upscale: int = 4,
    res_scale: float = 1.0,
    img_range: float = 255.0,
    rgb_mean: Sequence[float] = (0.4488, 0.4371, 0.4040),
) -> nn.Module:
    """Build `basicsr.archs.rcan_arch.RCAN`, unchanged: its weights load there.

    Args:
        num_in_ch: channels of the LR image.
        num_out_ch: channels of the SR image.
        num_feat: channels of the features.
        num_group: number of residual groups.
        num_block: blocks in each group; BasicSR's default is 16, the paper of RCAN has 20.
        squeeze_factor: reduction of the channel attention.
        upscale: a power of 2, or 3.
        res_scale: scale of each residual.
        img_range: factor on the input, whose values are in [0, 1].
        rgb_mean: mean of the images, in [0, 1].

    Raises:
        HostError: BasicSR is missing or broken.
    """
    network: nn.Module = import_basicsr("basicsr.archs.rcan_arch").RCAN(
        num_in_ch, num_out_ch, num_feat, num_group, num_block, squeeze_factor, upscale, res_scale, img_range, rgb_mean
    )
    return network
