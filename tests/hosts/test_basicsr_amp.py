"""``train: amp:`` in the steps of BasicSR's models: the networks in half precision, everything else as without."""

from __future__ import annotations

import runpy
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from meta_device import STEADY, Literals, Operations, meta, settled  # noqa: F401 - a fixture

pytestmark = [pytest.mark.basicsr]

from contrastive_sr.errors import ConfigError  # noqa: E402
from contrastive_sr.hosts.basicsr import runner  # noqa: E402
from contrastive_sr.hosts.basicsr.amp import MixedPrecision  # noqa: E402
from contrastive_sr.hosts.basicsr.host import import_basicsr  # noqa: E402
from contrastive_sr.hosts.in_step import in_one_copy  # noqa: E402
from contrastive_sr.methods.engine import StepCounter  # noqa: E402
from tests.helpers.same import assert_same  # noqa: E402
from tests.hosts.basicsr_options import write_options  # noqa: E402
from tests.hosts.real_esrgan import GAN  # noqa: E402

HAAR = {"type": "HaarDiscriminator", "out_indices": [0, 1]}
PCL = {"type": "PCL", "every": 1, "loss_share": 0.1, "embedding": HAAR}
EDSR = {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 4}
DASR = {
    "network_g": {"type": "DASR", "channels": 8, "groups": 1, "blocks": 1},
    "degradation": "dasr-isotropic-x4",
    "datasets": {"train": {"batch_size_per_gpu": 2, "type": "HighResolutionImageDataset", "crops": 2}},
}


def make(folder: Path, amp: object, methods: dict[str, Any] = PCL, **changes: Any) -> Any:
    """A model of ours, as BasicSR builds it."""
    adam = {"type": "Adam", "lr": 1e-3}
    opt: dict[str, Any] = {
        "name": "amp", "model_type": "ContrastiveSRModel", "scale": 4, "num_gpu": 0, "is_train": True, "dist": False,
        "rank": 0, "world_size": 1, "manual_seed": 0, "network_g": EDSR, "methods": [methods],
        "datasets": {"train": {"batch_size_per_gpu": 2}},
        "path": {"training_states": str(folder), "models": str(folder)},
        "train": {
            "amp": amp, "optim_g": adam, "optim_methods": adam,
            "scheduler": {"type": "MultiStepLR", "milestones": [100]},
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
        },
    }  # fmt: skip
    for key, value in changes.items():
        (opt["train"] if key in ("gan_opt", "optim_d") else opt)[key] = value
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    torch.manual_seed(5)
    return import_basicsr("basicsr.models").build_model(deepcopy(opt))


def train(model: Any, steps: int, first: int = 1) -> Any:
    """Steps of fixed batches."""
    for step in range(first, first + steps):
        hr = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(step))
        pair = {"lq": F.avg_pool2d(hr, 4)} if model.degradation is None else {"gt_key": hr.flip(3)}
        model.feed_data({"gt": hr, **pair})
        model.optimize_parameters(step)
    return model


def test_the_step_is_the_one_of_float32_but_for_rounding(tmp_path: Path) -> None:
    whole = train(make(tmp_path, False), 2)
    for amp in ("bfloat16", "float16"):
        model = make(tmp_path, amp)
        seen = []
        model.net_g.conv_last.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))  # noqa: B023
        train(model, 2)
        assert seen == [getattr(torch, amp)] * 2
        assert model.get_current_log() == pytest.approx(whole.get_current_log(), rel=0.05)
        # nothing is left of the step: validation is in float32, and the next backward pass is anyone's
        assert model.net_g(torch.rand(1, 3, 8, 8)).dtype == torch.float32
        assert not {"forward", "step"} & {*vars(model.net_g), *vars(model.cri_pix)}
        # Adam's first steps are of its learning rate, however large the gradient: in the weights a scale would not show
        now, then = (torch.cat([p.grad.flatten() for p in of.net_g.parameters()]) for of in (model, whole))
        assert float((now - then).norm() / then.norm()) < 0.05


def test_the_pixel_loss_is_in_float32(tmp_path: Path) -> None:
    """Also one that computes with convolutions, which autocast would run in half precision."""

    class Filtered(torch.nn.Module):
        def forward(self, sr: torch.Tensor, hr: torch.Tensor) -> torch.Tensor:
            filtered = F.conv2d(sr - hr, torch.ones(1, 3, 3, 3))
            seen.append(filtered.dtype)
            return filtered.abs().mean()

    seen: list[torch.dtype] = []
    model = make(tmp_path, "bfloat16")
    model.cri_pix.pixel_loss = Filtered()
    train(model, 2)
    assert seen == [torch.float32] * 2
    assert "forward" not in vars(model.cri_pix.pixel_loss)


def test_a_gradient_that_overflows_is_left_out_and_lowers_the_scale(tmp_path: Path) -> None:
    model = train(make(tmp_path, "float16"), 1)
    before, embedding = deepcopy(model.net_g.state_dict()), deepcopy(model.methods["pcl"].embedding.state_dict())
    model.amp.scaler.update(2.0**60)
    train(model, 1, first=2)
    assert_same(model.net_g.state_dict(), before, "net")
    assert model.amp.scaler.get_scale() == 2.0**59
    assert not torch.equal(model.methods["pcl"].embedding.head.weight, embedding["head.weight"])


def test_a_resumed_training_goes_on_with_its_scale(tmp_path: Path) -> None:
    model = train(make(tmp_path, "float16"), 1)
    model.amp.scaler.update(2.0**60)
    train(model, 1, first=2)  # the scale is halved, and the count of good steps begins anew
    model.save_training_state(0, 2)
    state = torch.load(tmp_path / "2.state", map_location="cpu", weights_only=True)
    resumed, other = make(tmp_path, "float16"), make(tmp_path, "bfloat16")
    for now in (resumed, other):
        now.net_g.load_state_dict(model.net_g.state_dict())
        now.resume_training(deepcopy(state))
    assert resumed.amp.scaler.state_dict() == model.amp.scaler.state_dict()
    for now in (model, resumed):
        train(now, 1, first=3)
    assert_same(resumed.net_g.state_dict(), model.net_g.state_dict(), "net")
    assert train(other, 1, first=3).amp.scaler is None


def test_shares_at_layers_in_half_precision(tmp_path: Path) -> None:
    """Of two images DASR's term is so steep that its scaled gradient is infinite, and the weight was 0."""
    method = {"type": "DASR", "queue_size": 16, "loss_share": 0.1, "warmup_steps": 1}
    model = train(make(tmp_path, "float16", method, **DASR), 3)
    log, whole = (of.get_current_log() for of in (model, train(make(tmp_path, False, method, **DASR), 3)))
    for name in ("weight", "share"):
        assert log[f"dasr_contrastive_{name}"] == pytest.approx(whole[f"dasr_contrastive_{name}"], rel=0.1)
    assert whole["dasr_contrastive_weight"] > 0
    assert model.amp.scaler.get_scale() == 2.0**16  # no step was left out


def test_a_gan_in_half_precision(tmp_path: Path) -> None:
    gan = {key.removeprefix("train:"): value for key, value in GAN.items() if "iters" not in key}
    model = train(make(tmp_path, "float16", model_type="ContrastiveESRGANModel", **gan), 2)
    steps = [{int(state["step"]) for state in optimizer.state.values()} for optimizer in model.optimizers]
    assert steps == [{2}, {2}]
    assert all(torch.isfinite(torch.tensor(value)) for value in model.get_current_log().values())


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    for wrong in ("fp16", 1, {"dtype": "bfloat16"}):
        with pytest.raises(ConfigError, match=r"train: amp: expected bfloat16, float16, true .*, got"):
            MixedPrecision(wrong, torch.device("cpu"))
    assert MixedPrecision(True, torch.device("cpu")).dtype == torch.bfloat16


def test_the_stock_model_has_no_mixed_precision(
    demo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"model_type": "SRModel", "methods": None, "train:amp": "bfloat16"}
    options = write_options(tmp_path, "demo_pcl_edsr", demo_data, changes)
    with pytest.raises(ConfigError, match=r"train: amp: SRModel trains in float32"):
        runner.train(options, [])


def test_prefetching_to_a_gpu_where_there_is_none() -> None:
    import_basicsr("contrastive_sr.hosts.basicsr.plugin")
    loading = import_basicsr("basicsr.data.prefetch_dataloader")
    batches = [{"lq": torch.full((1,), float(number))} for number in range(2)]
    prefetcher = loading.CUDAPrefetcher(batches, {"num_gpu": torch.cuda.device_count()})
    for _ in range(2):
        prefetcher.reset()
        assert [prefetcher.next()["lq"].item() for _ in range(2)] == [0, 1]
        assert prefetcher.next() is None


@pytest.mark.usefixtures("meta")
@pytest.mark.parametrize("host", ["SRModel", "ESRGANModel"])
def test_a_steady_step_reads_nothing(host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a device that has no values to give: what reads one is an error, or among what is counted."""
    base = import_basicsr("basicsr.models.base_model").BaseModel
    on_meta = property(lambda self: torch.device("meta"), lambda self, value: None)
    monkeypatch.setattr(base, "device", on_meta, raising=False)
    steps = [STEADY - 1]  # the count is read once, when a training begins
    monkeypatch.setattr(StepCounter, "value", property(lambda self: steps[-1]))
    gan = {key.removeprefix("train:"): value for key, value in GAN.items() if "iters" not in key}
    with torch.device("meta"):
        model = make(tmp_path, False, model_type=f"Contrastive{host}", **(gan if "GAN" in host else {}))
    settled(model.methods)
    images = {"lq": torch.rand(2, 3, 8, 8, device="meta"), "gt": torch.rand(2, 3, 32, 32, device="meta")}
    model.feed_data(images)
    model.optimize_parameters(1)  # in its first call BasicSR's EDSR copies a mean to the device
    for number in (STEADY - 1, STEADY):  # the first of the two measures shares
        steps.append(number)
        with Literals() as literals, Operations() as operations:
            model.feed_data(images)
            model.optimize_parameters(number)
        assert not operations.mixed, operations.mixed
        assert literals.count == 0
        assert model.log_dict["l_pix" if host == "SRModel" else "l_g_pix"].is_meta
    with Operations() as operations:
        in_one_copy(model.log_dict)
    assert sum(operations.mixed.values()) == 1


def test_networks_in_channels_last_train_as_in_the_default_layout(
    tmp_path: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train(make(tmp_path, False), 3).net_g
    base = import_basicsr("basicsr.models.base_model").BaseModel
    monkeypatch.setattr(base, "model_to_device", base.model_to_device)  # given back after the test
    runpy.run_path(str(project / "benchmarks/studies/channels_last.py"))
    net = train(make(tmp_path, False), 3).net_g
    assert net.conv_first.weight.is_contiguous(memory_format=torch.channels_last)
    assert not plain.conv_first.weight.is_contiguous(memory_format=torch.channels_last)
    for name, value in net.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[name], rtol=1e-3, atol=1e-4)
