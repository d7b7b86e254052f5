"""Methods in traiNNer-redux: in a small host of the same make, and in a checkout where ``TRAINNER_CHECKOUT`` names one.

The small host, :class:`Host`, is ours and holds what the adapter relies on, no more:

- options that are structs and refuse unknown fields: ``train.losses``, a list of free dicts,
  ``datasets["train"].batch_size_per_gpu``, ``world_size``, ``path.training_states``, ``path.resume_state``;
- ``opt``, ``device``, ``net_g``, ``optimizer_g``, ``lq``, ``gt``, and ``losses``: modules by label, in their order;
- ``init_training_settings()``, which makes the losses; ``optimize_parameters(iter, accum_iter, apply_gradient)``, which
  multiplies what each loss returns by ``abs(loss.loss_weight)``, gives losses of negative weight another target, calls
  that of the label ``l_g_gan`` with something else, and returns early where the sum is not finite;
- ``reduce_loss_dict(dict)``, given sums over images since the log was printed; ``save_training_state(epoch, iter)``;
  ``resume_training(state)``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contrastive_sr.errors import ConfigError, NonFiniteError
from contrastive_sr.hosts.trainner import with_methods
from contrastive_sr.networks import DASR
from tests.helpers.same import assert_same

L1 = {"type": "l1loss", "loss_weight": 1.0}
MSE = {"type": "mseloss", "loss_weight": 0.5}
GAN = {"type": "ganloss", "loss_weight": 0.1}
SMALL = {"type": "HaarDiscriminator", "out_indices": [0, 1]}  # an embedding that takes little time


def ours(weight: float = 1.0, **method: Any) -> dict[str, Any]:
    """The entry of the methods."""
    methods = [{"type": "PCL", "every": 1, "embedding": SMALL, **(method or {"loss_weight": 0.0})}]
    return {
        "type": "contrastive",
        "loss_weight": weight,
        "methods": methods,
        "optim_methods": {"type": "Adam", "lr": 1e-3},
    }


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """Options that refuse unknown fields."""


class Data(Strict):
    batch_size_per_gpu: int | None = None
    accum_iter: int = 1


class Paths(Strict):
    training_states: str | None = None
    resume_state: str | None = None


class Train(Strict):
    losses: list[dict[str, Any]] | None = None


class Options(Strict):
    path: Paths
    datasets: dict[str, Data]
    train: Train | None = None
    world_size: int | None = None
    amp_bf16: bool = False
    input_pixel_format: str = "rgb"
    output_pixel_format: str = "rgb"


class Difference(nn.Module):
    """A loss without its weight, which the host multiplies."""

    def __init__(self, power: int, loss_weight: float) -> None:
        super().__init__()
        self.power, self.loss_weight = power, loss_weight

    def forward(self, sr: Tensor, target: Tensor) -> Tensor:
        return (sr - target).abs().pow(self.power).mean()


class Parts(Difference):
    """A loss that returns several."""

    def forward(self, sr: Tensor, target: Tensor) -> Any:
        return {"one": (sr - target).abs().mean()}


class Judge(nn.Module):
    """A GAN's loss, of predictions."""

    def __init__(self, loss_weight: float) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, prediction: Tensor, real: bool) -> Tensor:
        return F.softplus(-prediction if real else prediction).mean()


LOSSES = {
    "l1loss": lambda w: Difference(1, w),
    "mseloss": lambda w: Difference(2, w),
    "partsloss": lambda w: Parts(1, w),
    "ganloss": Judge,
}


class Host:
    """A model of the make of traiNNer-redux."""

    def __init__(self, opt: Options) -> None:
        self.opt, self.device = opt, torch.device("cpu")
        self.net_g = self.network()
        self.net_d = nn.Conv2d(3, 1, 4, 4)
        self.losses: dict[str, nn.Module] = {}
        self.log_dict: dict[str, Any] = {}
        self.loss_samples, self.skipped = 0, 0
        if opt.train is not None:
            self.init_training_settings()

    def network(self) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))

    def init_training_settings(self) -> None:
        assert self.opt.train is not None
        self.accum_iters = self.opt.datasets["train"].accum_iter
        self.net_g_ema = torch.optim.swa_utils.AveragedModel(self.net_g)
        for loss in self.opt.train.losses or []:
            if loss["loss_weight"]:
                label = "l_g_" + loss["type"].lower().replace("loss", "")
                self.losses[label] = LOSSES[loss["type"]](loss["loss_weight"])
        assert self.losses, "At least one loss must be defined."
        self.optimizer_g = torch.optim.AdamW(self.net_g.parameters(), lr=1e-2)
        self.schedule = torch.optim.lr_scheduler.MultiStepLR(self.optimizer_g, [2], 0.1)

    def optimize_parameters(self, current_iter: int, current_accum_iter: int, apply_gradient: bool) -> None:
        images = len(self.gt)
        self.loss_samples += images
        log: dict[str, Any] = {}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.opt.amp_bf16):
            self.output = self.net_g(self.lq)
            total = torch.zeros(())
            for label, loss in self.losses.items():
                target = self.gt
                if loss.loss_weight < 0:
                    with torch.inference_mode():
                        target = F.interpolate(self.lq, scale_factor=4, mode="bicubic")
                value = loss(self.net_d(self.output), True) if label == "l_g_gan" else loss(self.output, target)
                parts = {f"{label}_{name}": part for name, part in value.items()} if isinstance(value, dict) else None
                for name, part in (parts or {label: value}).items():
                    log[name] = part * abs(loss.loss_weight)
                    total = total + log[name] / self.accum_iters
            if not total.isfinite():
                self.skipped += 1
                return
        total.backward()
        log["l_g_total"] = total
        if apply_gradient:
            log["grad_norm_g"] = nn.utils.clip_grad_norm_(self.net_g.parameters(), 0.1)
            log["scale_g"] = 1.0
            self.optimizer_g.step()
            self.optimizer_g.zero_grad()
            self.schedule.step()
            self.net_g_ema.update_parameters(self.net_g)
        for name, value in log.items():
            value = value if isinstance(value, float) else value.detach().float()
            self.log_dict[name] = self.log_dict.get(name, 0) + value * images
        self.log_dict = self.reduce_loss_dict(self.log_dict)

    def reduce_loss_dict(self, loss_dict: dict[str, Any]) -> dict[str, Any]:
        return loss_dict

    def logged(self) -> dict[str, float]:
        log = {name: float(value / self.loss_samples) for name, value in self.log_dict.items()}
        self.log_dict, self.loss_samples = {}, 0
        return log

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        if current_iter != -1:
            state = {
                "iter": current_iter,
                "net_g": self.net_g.state_dict(),
                "net_g_ema": self.net_g_ema.state_dict(),
                "optimizers": [self.optimizer_g.state_dict()],
                "schedulers": [self.schedule.state_dict()],
            }
            assert self.opt.path.training_states is not None
            torch.save(state, Path(self.opt.path.training_states, f"{current_iter}.state"))

    def resume_training(self, resume_state: Any) -> None:
        self.net_g.load_state_dict(resume_state["net_g"])
        self.net_g_ema.load_state_dict(resume_state["net_g_ema"])
        self.optimizer_g.load_state_dict(resume_state["optimizers"][0])
        self.schedule.load_state_dict(resume_state["schedulers"][0])


HOST = with_methods(Host)


def build(*losses: dict[str, Any], model: Any = HOST, accumulate: int = 1, **more: Any) -> Any:
    """A model, by options as a file gives them; they stay as they are."""
    options = {
        "path": {"training_states": str(more.pop("folder", "nowhere")), "resume_state": more.pop("resume_state", None)},
        "datasets": {"train": {"batch_size_per_gpu": 2, "accum_iter": accumulate}},
        "train": {"losses": list(losses)},
        **more,
    }
    opt = msgspec.convert(options, Options)
    torch.manual_seed(3)
    made = model(opt)
    assert opt == msgspec.convert(options, Options)
    return made


def train(model: Any, steps: int, first: int = 1) -> list[dict[str, float]]:
    """Steps on fixed batches; what was logged of each."""
    logs = []
    for step in range(first, first + steps):
        for part in range(1, model.accum_iters + 1):
            draws = torch.Generator().manual_seed(100 * step + part)
            model.gt = torch.rand(2, 3, 64, 64, generator=draws)
            model.lq = F.avg_pool2d(model.gt, 4)
            model.optimize_parameters(step, part % model.accum_iters, part == model.accum_iters)
        logs.append(model.logged())
    return logs


def assert_same_networks(model: Any, other: Any) -> None:
    for name in ("net_g", "net_g_ema"):
        assert_same(getattr(model, name).state_dict(), getattr(other, name).state_dict(), name)


@pytest.mark.parametrize(
    ("losses", "more"),
    [
        ([L1], {}),
        ([MSE, L1], {"amp_bf16": True, "accumulate": 2}),
        ([GAN, {"type": "l1loss", "loss_weight": -0.5}, MSE], {}),
    ],
    ids=["one", "bf16, accumulated", "GAN, negative"],
)
def test_every_number_of_the_host_stays(losses: list[dict[str, Any]], more: dict[str, Any]) -> None:
    stock, model = build(*losses, **more), build(*losses, ours(), **more)
    assert type(stock) is Host
    assert type(model).__name__ == "ContrastiveHost"
    for before, now in zip(train(stock, 3), train(model, 3), strict=True):
        assert {name: now[name] for name in before} == before
        assert now["pcl_contrastive_raw"] > 0
    assert_same_networks(model, stock)
    entrances = [label for label, loss in model.losses.items() if type(loss).__name__ == "PixelLossWithMethods"]
    assert entrances == ["l_g_l1" if losses == [L1] else "l_g_mse"]


@pytest.mark.parametrize("key", ["input_pixel_format", "output_pixel_format"])
def test_pasts_of_a_network_in_other_colours_are_refused(key: str) -> None:
    past = ours(type="MCL", embedding=SMALL, negatives=[{"type": "PastOutput"}])
    train(build(L1, past), 1)
    train(build(L1, ours(), **{key: "yuv444"}), 1)
    with pytest.raises(ConfigError, match=f"PastOutput.* expected {key}: rgb, got yuv444"):
        build(L1, past, **{key: "yuv444"})


class Compiled(Host):
    """As with `use_compile`."""

    def network(self) -> nn.Module:
        compiled: Any = torch.compile(super().network(), backend="aot_eager")
        return compiled


def test_a_compiled_network() -> None:
    torch.compiler.reset()
    compiled = with_methods(Compiled)
    whole = train(build(L1, ours(loss_share=0.3)), 2)
    for log, want in zip(train(build(L1, ours(loss_share=0.3), model=compiled), 2), whole, strict=True):
        assert log == pytest.approx(want, rel=1e-4)
    on_layers = ours(type="InfoNCE", embedding={**SMALL, "out_indices": [0]}, dim=4, layers=["0"], loss_share=0.3)
    whole = train(build(L1, on_layers), 2)
    with pytest.warns(UserWarning, match="layers: 0 cannot be read in what torch.compile compiles"):
        assert train(build(L1, on_layers, model=compiled), 2)[1] == pytest.approx(whole[1], rel=1e-4)


def test_the_pixel_loss_is_logged_without_the_terms() -> None:
    (before,) = train(build(MSE, L1, accumulate=2), 1)
    model = build(MSE, L1, ours(loss_share=0.5), accumulate=2)
    (now,) = train(model, 1)
    assert now["l_g_mse"] == pytest.approx(before["l_g_mse"], rel=1e-5)
    assert now["l_g_l1"] == before["l_g_l1"]
    added = now["pcl_contrastive_weight"] * now["pcl_contrastive_raw"]
    assert now["l_g_total"] - before["l_g_total"] == pytest.approx(added / 2, rel=0.1)
    assert now["pcl_contrastive_share"] == pytest.approx(0.5, rel=0.2)
    assert model.in_step.methods.step.value == 2  # once a batch


def test_a_share_is_of_the_loss_as_the_host_weighs_it() -> None:
    """Of a quarter of the loss, the same share adds a quarter."""
    grown = []
    for weight in (1.0, 0.25):
        loss = {"type": "l1loss", "loss_weight": weight}
        before, now = train(build(loss), 1)[0], train(model := build(loss, ours(loss_share=0.3)), 1)[0]
        assert now["pcl_contrastive_share"] == pytest.approx(0.3, rel=1e-4)
        assert model.losses["l_g_l1"].loss_weight == weight
        grown.append((now["l_g_total"] - before["l_g_total"]) / weight)
        added = now["pcl_contrastive_weight"] * now["pcl_contrastive_raw"]  # not once more by the loss's weight
        assert now["l_g_total"] - before["l_g_total"] == pytest.approx(added, rel=1e-3)
    assert grown[1] == pytest.approx(grown[0], rel=1e-3)


def test_two_steps_equal_one_and_one(tmp_path: Path) -> None:
    losses, more = (L1, ours(loss_share=0.3)), {"accumulate": 2, "folder": tmp_path}
    whole = build(*losses, **more)
    logs = train(whole, 4)
    half = build(*losses, **more)
    train(half, 2)
    half.save_training_state(0, -1)
    half.save_training_state(0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.contrastive", "2.state"]
    moved = tmp_path / "elsewhere"  # a state that the options name is looked for where it is
    for resume_state in (None, str(moved / "2.state")):
        resumed = build(*losses, resume_state=resume_state, **more)
        resumed.resume_training(torch.load((moved if resume_state else tmp_path) / "2.state", weights_only=True))
        assert train(resumed, 2, first=3) == logs[2:]
        assert_same_networks(resumed, whole)
        assert_same(resumed.methods.state_dict(), whole.methods.state_dict(), "methods")
        if resume_state is None:
            moved.mkdir()
            for path in list(tmp_path.glob("2.*")):
                path.rename(moved / path.name)


def test_a_step_that_the_host_would_skip() -> None:
    model = build(L1, ours(loss_share=0.3))
    train(model, 1)
    model.lq = torch.full((2, 3, 16, 16), torch.nan)
    with pytest.raises(NonFiniteError, match="expected a finite number"):
        model.optimize_parameters(2, 0, True)


def test_without_the_entry_or_with_a_weight_of_0_the_model_is_the_hosts() -> None:
    assert type(build(L1)) is type(build(L1, ours(0.0))) is Host
    assert type(HOST(Options(path=Paths(), datasets={}))) is Host  # a test, without training


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([L1, ours(), ours()], r"losses: expected one entry of type contrastive, got 2. Join their methods"),
        ([L1, {**ours(), "optim_method": {}}], r"contrastive does not know the key 'optim_method'. Did you mean"),
        ([L1, ours(0.5)], r"loss_weight: expected 1, or 0 to leave the methods out, got 0.5"),
        ([L1, {"type": "contrastive", "loss_weight": 1.0}], r"expected the key 'methods', got type, loss_weight"),
        ([L1, {**ours(), "methods": []}], r"methods: expected a list of mappings"),
        ([L1, {**ours(), "methods": [{"type": "PLC"}]}], r"does not know the type 'PLC'. Did you mean 'PCL'"),
        ([L1, {**ours(), "optim_methods": None}], r"contrastive: optim_methods: expected options for the parts"),
        ([ours()], r"losses: expected one that compares SR image and target, .* got none. Add"),
        ([GAN, {"type": "l1loss", "loss_weight": -1.0}, ours()], r"positive loss_weight, .* got l_g_gan, l_g_l1"),
        ([{"type": "partsloss", "loss_weight": 1.0}, ours()], r"one that returns a scalar tensor, got a dict"),
    ],
)
def test_mistakes(losses: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(build(*losses), 1)


def test_a_warm_up_is_refused() -> None:
    class Blind(Host):
        def network(self) -> nn.Module:
            return DASR(channels=8, groups=1, blocks=1, scale=4)

    entry = {"type": "contrastive", "loss_weight": 1.0, "methods": [{"type": "DASR", "warmup_steps": 3}]}
    with pytest.raises(ConfigError, match=r"dasr: expected no warm-up, in which the losses of traiNNer-redux would"):
        build(L1, entry, model=with_methods(Blind))


# -------------------------------------------------------------------------------------------------- the real trainer

CHECKOUT = os.environ.get("TRAINNER_CHECKOUT", "")
REAL = """
import copy, json, sys, tempfile, random
from pathlib import Path
import msgspec, numpy, torch
sys.argv = ["train.py"]
torch.set_num_threads(1)
import traiNNer.models as models
from contrastive_sr.hosts.trainner import with_methods
models.SRModel = with_methods(models.SRModel)
from traiNNer.utils.redux_options import ReduxOptions

L1 = {"type": "l1loss", "loss_weight": 0.5}
MSSIM = {"type": "mssimloss", "loss_weight": 0.5}
OURS = {"type": "contrastive", "loss_weight": 1.0, "optim_methods": {"type": "Adam", "lr": 1e-3}}

def build(folder, *losses, accumulate=1, ema=0.9):
    data = {"name": "a", "type": "pairedimagedataset", "dataroot_gt": ["x"], "dataroot_lq": ["y"]}
    opt = msgspec.convert({
        "name": "t", "scale": 4, "num_gpu": 0, "path": {}, "network_g": {"type": "superultracompact"},
        "datasets": {"train": {**data, "batch_size_per_gpu": 2, "accum_iter": accumulate}},
        "train": {"total_iter": 9, "ema_decay": ema, "grad_clip": True, "grad_clip_max_norm": 0.05,
                  "losses": list(losses), "optim_g": {"type": "AdamW", "lr": 1e-3},
                  "scheduler": {"type": "MultiStepLR", "milestones": [2], "gamma": 0.5}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1, "use_tb_logger": False},
    }, ReduxOptions)
    opt.is_train, opt.dist, opt.rank, opt.world_size = True, False, 0, 1
    for name in ("models", "resume_models", "training_states"):
        path = Path(folder, name)
        path.mkdir(parents=True, exist_ok=True)
        setattr(opt.path, name, str(path))
    return opt

def made(opt):
    torch.manual_seed(3)
    return models.build_model(opt)

def train(model, steps, first=1):
    logs = []
    for step in range(first, first + steps):
        for part in range(1, model.accum_iters + 1):
            gt = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(100 * step + part))
            model.feed_data({"gt": gt, "lq": torch.nn.functional.avg_pool2d(gt, 4)})
            model.optimize_parameters(step, part % model.accum_iters, part == model.accum_iters)
        model.update_learning_rate(step)
        logs.append({name: float(value) for name, value in model.get_current_log().items()})
        model.reset_current_log()
    return logs

def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)

folder = tempfile.mkdtemp()
for accumulate in (1, 2):
    stock = made(build(folder, MSSIM, L1, accumulate=accumulate))
    entry = {**OURS, "methods": [{"type": "PCL", "every": 1, "loss_weight": 0.0}]}
    model = made(build(folder, MSSIM, L1, entry, accumulate=accumulate))
    before, now = train(stock, 3), train(model, 3)
    assert type(stock).__name__ == "SRModel" and type(model).__name__ == "ContrastiveSRModel"
    assert [{name: log[name] for name in old} for old, log in zip(before, now)] == before
    assert same(stock.net_g, model.net_g) and same(stock.net_g_ema, model.net_g_ema)

entry = {**OURS, "methods": [{"type": "PCL", "every": 1, "loss_share": 0.3}]}
whole = made(build(folder + "/whole", L1, entry))
logs = train(whole, 4)
plain = train(made(build(folder, L1)), 1)
assert abs(logs[0]["pcl_contrastive_share"] - 0.3) < 1e-4 and logs[0]["l_g_total"] > plain[0]["l_g_total"]
assert abs(logs[0]["l_g_l1"] - plain[0]["l_g_l1"]) < 1e-6
half = made(build(folder + "/half", L1, entry))
train(half, 2)
half.save(0, 2)
opt = build(folder + "/half", L1, entry)
opt.path.pretrain_network_g = folder + "/half/resume_models/net_g_2.safetensors"
opt.path.pretrain_network_g_ema = folder + "/half/models/net_g_ema_2.safetensors"
opt.path.resume_state = folder + "/half/training_states/2.state"
resumed = made(opt)
resumed.resume_training(torch.load(opt.path.resume_state, weights_only=True))
assert train(resumed, 2, first=3) == logs[2:]
assert same(whole.net_g, resumed.net_g) and same(whole.net_g_ema, resumed.net_g_ema)
assert same(whole.methods, resumed.methods)
print("all well")
"""


@pytest.mark.skipif(not CHECKOUT, reason="TRAINNER_CHECKOUT names no checkout of traiNNer-redux")
def test_the_real_trainer() -> None:
    """In a process of its own, by ``TRAINNER_PYTHON`` if this one cannot import traiNNer-redux."""
    paths = [str(Path(__file__).resolve().parents[2]), CHECKOUT]
    done = subprocess.run(
        [os.environ.get("TRAINNER_PYTHON", sys.executable), "-c", REAL],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("all well\n")
