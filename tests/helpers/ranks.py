"""What each of two processes does in tests/test_distributed.py; a module, so that new processes can import it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
import torch.nn.functional as F
from host import methods_on, step_of
from small_models import CountingNet, SmoothEmbedding, images_batch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contrastive_sr.distributed import (
    average_gradients,
    check_same_on_ranks,
    copy_from_first_rank,
    gather_rows,
    rank,
    reduce_over_ranks,
    sum_over_ranks,
    world_size,
)
from contrastive_sr.errors import ConfigError
from contrastive_sr.losses import (
    BidirectionalNCELoss,
    CriteriaLoss,
    DegradationQueueLoss,
    DualContrastiveLoss,
    InfoNCELoss,
    SRNCELoss,
)
from contrastive_sr.methods import PCL, Methods

WORLD = 2
STEPS = 4
SIZES = [(3, 1), (2, 0), (0, 2), (2, 2)]  # of the batches of two ranks
IN_BATCH = ["dual", "info", "bidirectional", "tempered", "negative"]  # losses whose negatives come from the batch


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


def in_batch_loss(kind: str, gather: bool) -> nn.Module:
    """One of the losses of IN_BATCH."""
    if kind == "dual":
        return DualContrastiveLoss(gather=gather)
    torch.manual_seed(0)
    settings: dict[str, Any] = {"temperature": 0.2, "channels": [3], "dim": 5, "positions": None}
    settings |= {"negatives_from": "batch", "gather": gather}
    if kind in ("info", "bidirectional"):
        loss: nn.Module = {"info": InfoNCELoss, "bidirectional": BidirectionalNCELoss}[kind](**settings)
    else:
        loss = SRNCELoss(variant=kind, detach_hr=False, detach_lr=False, **settings)
    return loss.double()


def in_batch_run(kind: str, sizes: tuple[int, int], indices: list[int], gather: bool) -> dict[str, Any]:
    """The loss on the joined batch of some ranks, and all gradients."""
    generator = torch.Generator().manual_seed(sum(kind.encode()) + 10 * sizes[0] + sizes[1])
    roles = 3 if kind in ("tempered", "negative") else 2
    images = torch.randn(roles, sum(sizes), 3, 2, 2, generator=generator, dtype=torch.float64)
    parts = images.split(sizes, dim=1)
    leaves = [role.clone().requires_grad_() for role in torch.cat([parts[index] for index in indices], dim=1)]
    loss = in_batch_loss(kind, gather)
    value = loss(*leaves)
    value.backward()
    return {
        "loss": value.item(),
        "gradients": [leaf.grad for leaf in leaves],
        "head_gradients": [parameter.grad for parameter in loss.parameters()],
    }


def criteria_values(index: int) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Criteria of one rank."""
    anchor, positive, negative = torch.rand(3, generator=torch.Generator().manual_seed(30 + index))
    return anchor, [positive], [negative]


class QueueTraining(nn.Module):
    """An encoder and its queue, to be wrapped as one."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        middle: nn.Module = nn.BatchNorm1d(7) if norm else nn.Tanh()
        self.encoder = nn.Sequential(nn.Linear(6, 7), middle, nn.Linear(7, 4))
        settings: dict[str, Any] = {"momentum": 0.5, "temperature": 0.3, "gather": True}
        self.contrast = DegradationQueueLoss(self.encoder, dim=4, queue_size=5, **settings)
        self.double()

    def forward(self, query_images: Tensor, key_images: Tensor) -> Tensor:
        loss: Tensor = self.contrast(self.encoder(query_images), key_images, self.encoder)
        return loss


def queue_run(indices: list[int], wrap: bool = False) -> dict[str, Any]:
    """Train on the joined batches of some ranks, whose sizes are SIZES."""
    training = QueueTraining()
    model = DistributedDataParallel(training) if wrap else training
    optimizer = torch.optim.SGD(training.encoder.parameters(), 0.5)
    out: dict[str, Any] = {"losses": [], "gradients": [], "states": []}
    for step, sizes in enumerate(SIZES):
        generator = torch.Generator().manual_seed(step)
        crops = torch.randn(2, sum(sizes), 6, generator=generator, dtype=torch.float64).split(sizes, dim=1)
        query_images, key_images = torch.cat([crops[index] for index in indices], dim=1)
        optimizer.zero_grad()
        loss = model(query_images, key_images)
        loss.backward()
        optimizer.step()
        out["losses"].append(loss.item())
        out["gradients"].append([p.grad.clone() for p in training.encoder.parameters() if p.grad is not None])
        out["states"].append({name: value.clone() for name, value in training.contrast.state_dict().items()})
    return out


def discriminator() -> nn.Module:
    """A discriminator without BatchNorm: its gradient is a sum over images."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 5)).double()


def train(kind: str, indices: list[int]) -> dict[str, list[Any]]:
    """Some steps of a method without randomness on the joined batches of some ranks."""
    torch.manual_seed(0)
    weight = {"loss_share": 0.05} if kind == "share" else {"loss_weight": 1e-4}
    samples = {"positives": [{"type": "HighResolution"}], "negatives": [{"type": "UpsampledLowResolution"}]}
    fixed: dict[str, Any] = {"every": 1, "share_interval": 2, "phase": "fixed"}
    method, net = PCL(embedding=SmoothEmbedding(), **fixed, **samples, **weight), CountingNet()
    methods = methods_on(net, method)
    out: dict[str, list[Any]] = {"ratios": [], "weights": [], "keys": []}
    for step in range(STEPS):
        parts = [images_batch(seed=10 * step + index, size=16) for index in indices]
        batch = methods.run(net, {key: torch.cat([part[key] for part in parts]) for key in ("lr", "hr")})
        losses = methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        out["ratios"].append(method.weights["contrastive"].ratio.item())
        out["weights"].append(losses.metrics["pcl_contrastive_weight"].item())
        out["keys"].append(list(losses.metrics))
    return out


def work(index: int, folder: str) -> None:
    """Everything one rank does; its results are saved as ``folder/index.pt``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=index, world_size=WORLD)
    real, fake = logits(index)
    out: dict[str, Any] = {"world_size": world_size(), "rank": rank(), "summed": real}
    out["sum"] = sum_over_ranks(real)

    torch.manual_seed(index)
    norm = torch.nn.BatchNorm1d(3)
    torch.nn.init.normal_(norm.weight)
    out["drawn"] = norm.weight.detach().clone()
    copy_from_first_rank(norm)
    out["copied"] = norm.state_dict()

    leaf = real.clone().requires_grad_()
    gathered, out["own"] = gather_rows(leaf)
    out["gathered"] = gathered.detach()
    (out["gather_gradient"],) = torch.autograd.grad((gathered * gather_weights(index)).sum(), leaf)

    out["dual_loss"] = DualContrastiveLoss(gather=True)(real, fake).item()
    model = DistributedDataParallel(discriminator())
    real_logits, fake_logits = model(torch.cat(images(index))).chunk(2)
    DualContrastiveLoss(gather=True)(real_logits, fake_logits).backward()
    out["ddp_gradients"] = [parameter.grad for parameter in model.parameters()]

    out["average_gradients"], out["collectives"] = _average_gradients(index)
    out["rows"] = [_gather_uneven(sizes, index) for sizes in SIZES]
    out["in_batch"] = {
        (kind, sizes): in_batch_run(kind, sizes, [index], gather=True) for kind in IN_BATCH for sizes in SIZES
    }
    criteria = CriteriaLoss(normalize=True)
    out["criteria"] = criteria(*criteria_values(index)).item()
    out["scales"] = criteria.scales.means
    out["queue"] = queue_run([index], wrap=True)
    out["queue_with_norm"] = _queue_with_norm(index)

    for kind in ("share", "fixed"):
        out[kind] = train(kind, [index])
    net = CountingNet()
    methods = _default_methods(net)
    out["samples"] = _samples(methods, images_batch())
    out["method_gradients"], out["warnings"] = _auxiliary_step(methods, net, index)
    out["state"] = methods.state_dict()
    check_same_on_ranks({"seed": 1, "network": nn.Conv2d})
    try:
        check_same_on_ranks({"seed": 1, "methods": [index], **({"val": None} if index else {})})
    except ConfigError as error:
        out["differing"] = str(error)
    torch.save(out, Path(folder) / f"{index}.pt")
    dist.destroy_process_group()


def _gather_uneven(sizes: tuple[int, int], index: int) -> dict[str, Any]:
    """Rows of batches of different sizes; rank 1's need no gradient of their own, but rank 0's do."""
    start = sum(sizes[:index])
    own = uneven_rows(sizes)[start : start + sizes[index]].requires_grad_(index == 0)
    joined, first = gather_rows(own)
    keys, _ = gather_rows(own, gradient=False)
    loss = (joined * (1 + index)).sum()
    loss.backward()
    reduced = {name: reduce_over_ranks(own.detach(), joined.numel(), name) for name in ("mean", "sum", "none")}
    return {"joined": joined.detach(), "first": first, "gradient": own.grad, "keys": keys, **reduced}


class MixedPart(nn.Module):
    """A part of a network with parameters that only some ranks' losses reach, and of two dtypes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.both = nn.Linear(3, 4).double()
        self.of_first, self.of_second, self.unused = (nn.Parameter(torch.rand(4).double()) for _ in range(3))
        self.single = nn.Parameter(torch.rand(4))
        self.fixed = nn.Parameter(torch.rand(4).double(), requires_grad=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        features = self.both(images) * self.fixed
        return [features * own + self.single for own in (self.of_first, self.of_second)]


def mixed_images(index: int) -> Tensor:
    """Images of one rank."""
    return torch.rand(2, 3, generator=torch.Generator().manual_seed(40 + index), dtype=torch.float64)


def mixed_loss(features: list[Tensor], index: int) -> Tensor:
    """The loss of one rank, which reaches ``of_first`` on the first rank and ``of_second`` on the second."""
    return features[index].square().mean()


def _average_gradients(index: int) -> tuple[dict[str, Tensor | None], int]:
    """Gradients of a part that is called on its own, inside of a network under DistributedDataParallel."""
    network = nn.Sequential(MixedPart())
    part = DistributedDataParallel(network).module[0]
    features = torch.func.functional_call(part, average_gradients(part), mixed_images(index))
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as collective:
        mixed_loss(features, index).backward()
    return {name: parameter.grad for name, parameter in part.named_parameters()}, collective.call_count


def uneven_rows(sizes: tuple[int, int]) -> Tensor:
    """The joined rows of all ranks."""
    return torch.arange(3.0 * sum(sizes)).view(-1, 3)


def _queue_with_norm(index: int) -> dict[str, Tensor]:
    """State after a step with BatchNorm in the encoder, and one in which rank 1 has no images."""
    training = QueueTraining(norm=True)
    generator = torch.Generator().manual_seed(index)
    training(*torch.randn(2, 3, 6, generator=generator, dtype=torch.float64))
    images = torch.randn(2, 3, 6, generator=generator, dtype=torch.float64)
    if index == 0:
        training(*images)
    else:
        training.contrast(images.new_empty(0, 4), images[1, :0], training.encoder)
    return training.contrast.state_dict()


def _default_methods(net: nn.Module) -> Methods:
    torch.manual_seed(0)
    return methods_on(net, PCL(every=1, loss_weight=10.0))


def _samples(methods: Methods, batch: dict[str, Tensor]) -> list[Tensor]:
    """The negatives of two steps, made from the same images on all ranks."""
    (method,) = methods
    draws = []
    for _ in range(2):
        draws.append(method.negatives[0](batch, step_of(methods).generator("cpu")))
        methods.step.advance()
    return draws


def _auxiliary_step(methods: Methods, net: CountingNet, index: int) -> tuple[list[Tensor], int]:
    """Gradients of a wrapped auxiliary step on this rank's own images, and the warnings of an SR step."""
    methods.load_state_dict(_default_methods(net).state_dict())
    wrapped = DistributedDataParallel(methods)
    batch = methods.run(net, images_batch(seed=index))
    sum(wrapped(batch).values()).backward()
    gradients = [parameter.grad for parameter in methods.parameters() if parameter.grad is not None]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
    return gradients, sum("pcl_contrastive" in str(warning.message) for warning in caught)
