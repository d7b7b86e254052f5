"""What each of two processes does in tests/test_distributed.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from small_models import CountingNet, SmoothEmbedding, images_batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.distributed import gather_with_gradient, rank, sum_over_ranks, world_size
from contrastive_sr.losses import DualContrastiveLoss
from contrastive_sr.methods import MethodList, build_methods

WORLD = 2
STEPS = 4


def logits(index: int) -> tuple[Tensor, Tensor]:
    """Real and fake logits of one rank."""
    generator = torch.Generator().manual_seed(index)
    real, fake = torch.randn(2, 3, 4, generator=generator, dtype=torch.float64).unbind()
    return real, fake


def gather_weights(index: int) -> Tensor:
    """Weights of one rank's loss on the gathered logits."""
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(10 + index), dtype=torch.float64)


def images(index: int) -> tuple[Tensor, Tensor]:
    """Real and fake images of one rank."""
    generator = torch.Generator().manual_seed(20 + index)
    real, fake = torch.rand(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64).unbind()
    return real, fake


def discriminator() -> nn.Module:
    """A discriminator without BatchNorm: its gradient is a sum over images."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5)).double()


def train(kind: str, indices: list[int]) -> dict[str, list[Any]]:
    """Some steps of a method without randomness on the joined batches of some ranks."""
    torch.manual_seed(0)
    weight = {"loss_share": 0.05} if kind == "share" else {"loss_weight": 1e-4}
    samples = {"positives": [{"type": "HighResolution"}], "negatives": [{"type": "UpsampledLowResolution"}]}
    config = {"type": "PCL", "embedding": SmoothEmbedding(), "share_interval": 2, **samples, **weight}
    methods, net = build_methods([config]), CountingNet()
    out: dict[str, list[Any]] = {"ratios": [], "weights": [], "keys": []}
    for step in range(STEPS):
        parts = [images_batch(seed=10 * step + index, size=16) for index in indices]
        batch = methods.run(net, {key: torch.cat([part[key] for part in parts]) for key in ("lr", "hr")})
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        out["ratios"].append(methods["pcl"].weights["contrastive"].ratio.item())
        out["weights"].append(losses.logs["pcl_contrastive_weight"].item())
        out["keys"].append([list(losses.terms), list(losses.logs)])
    return out


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    real, fake = logits(index)
    out: dict[str, Any] = {"world_size": world_size(), "rank": rank(), "summed": real}
    out["sum"] = sum_over_ranks(real)

    leaf = real.clone().requires_grad_()
    gathered = gather_with_gradient(leaf)
    out["gathered"] = gathered.detach()
    (out["gather_gradient"],) = torch.autograd.grad((gathered * gather_weights(index)).sum(), leaf)

    out["dual_loss"] = DualContrastiveLoss(gather=True)(real, fake).item()
    model = DistributedDataParallel(discriminator())
    real_logits, fake_logits = model(torch.cat(images(index))).chunk(2)
    DualContrastiveLoss(gather=True)(real_logits, fake_logits).backward()
    out["ddp_gradients"] = [parameter.grad for parameter in model.parameters()]

    for kind in ("share", "fixed"):
        out[kind] = train(kind, [index])
    methods = _default_methods()
    out["samples"] = _samples(methods, images_batch())
    out["method_gradients"], out["warnings"] = _auxiliary_step(methods, index)
    out["state"] = methods.state_dict()
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()


def _default_methods() -> MethodList:
    torch.manual_seed(0)
    return build_methods([{"type": "PCL", "loss_weight": 10.0}])


def _samples(methods: MethodList, batch: dict[str, Tensor]) -> list[Tensor]:
    """The negatives of two steps, made from the same images on all ranks."""
    method = methods.methods[0]
    draws = []
    for _ in range(2):
        draws.append(method.negatives[0](batch, method.generator(torch.device("cpu"))))
        method.step.advance()
    return draws


def _auxiliary_step(methods: MethodList, index: int) -> tuple[list[Tensor], int]:
    """Gradients of a wrapped auxiliary step on this rank's own images, and the warnings of an SR step."""
    net = CountingNet()
    methods.load_state_dict(_default_methods().state_dict())
    wrapped = DistributedDataParallel(methods)
    batch = methods.run(net, images_batch(seed=index))
    sum(wrapped(batch).values()).backward()
    gradients = [parameter.grad for parameter in methods.parameters() if parameter.grad is not None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    return gradients, sum("pcl_contrastive" in str(warning.message) for warning in caught)
