"""Cria-CL's training: the rows of Table V, the anchors of Table VI, masks, who learns from what, what is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from cria_models import EDSR, branches, cria, pairs, save_random_vgg
from host import Training, methods_on, raw_terms
from loss_oracles import alignment_loops, uniformity_loops
from same import assert_same
from small_models import CountingNet
from tolerances import assert_close
from torch import Tensor, nn

from contrastive_sr.criteria import SSIM
from contrastive_sr.errors import ConfigError, DataError
from contrastive_sr.losses import Contrast
from contrastive_sr.methods import CriaCL, Methods, build_methods
from contrastive_sr.methods.cria_cl import LOOK_INTERVAL, VARIANTS
from contrastive_sr.methods.weighting import DEFAULT_SHARE, TermWeight
from contrastive_sr.networks import CriteriaBranches

PIXELS = {"anchor": "Pixel", "positives": [{"type": "Pixel", "norm": "l2"}], "negatives": ["SSIM"]}


SMALL = {"CriaCL": {"align_weight": 0.1, "uniformity_weight": 0.1, "variant": 5, "vgg_weights": None}}


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VGG-19 with random weights."""
    return save_random_vgg(tmp_path_factory.mktemp("vgg") / "vgg19.pth")


def net_for(row: int) -> nn.Module:
    if VARIANTS[row].projection:
        return branches()
    torch.manual_seed(1)
    return CountingNet()


def ready(row: int = 7, **arguments: Any) -> tuple[CriaCL, Methods, nn.Module, dict[str, Tensor]]:
    method, net = cria(variant=row, **arguments), net_for(row)
    methods = methods_on(net, method)
    return method, methods, net, methods.run(net, pairs())


def losses_of(methods: Methods, batch: dict[str, Tensor]) -> Contrast:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large shares
        return methods.sr_losses(batch, 0.01 * F.l1_loss(batch["sr"], batch["hr"]))


# ----------------------------------------------------------------------------------------------------- Table V


@pytest.mark.parametrize("row", VARIANTS)
def test_rows_have_the_terms_of_table_v(row: int) -> None:
    _, methods, net, batch = ready(row)
    terms = {
        *({"adversarial"} if row > 1 else ()),
        *({"align"} if row in (3, 5, 7) else ()),
        *({"uniformity"} if row in (4, 5, 7) else ()),
    }
    assert set(methods.auxiliary_losses(batch)) == ({"cria_adversarial_discriminator"} if row > 1 else set())
    losses = losses_of(methods, batch)
    assert methods.trainable == (row > 1)
    assert set(methods.trained_parts()) == ({"cria_adversarial_discriminator"} if row > 1 else set())
    metrics = {"align": ("pixel_l1", "ssim"), "uniformity": ("pixel_l1", "adversarial")}
    wanted = {f"cria_{term}{kind}" for term in terms for kind in ("", "_raw", "_weight", "_share")}
    for role in terms & set(metrics):
        wanted |= {f"cria_{role}_{label}{end}" for label in metrics[role] for end in ("", "_push")}
        wanted |= {f"cria_{role}_mask"} if row == 7 else set()
    assert set(losses.metrics) == wanted
    assert {key for key in batch if "/" in key} == (
        {"features/align", "features/uniformity", "features/masks"} if row == 7 else set()
    )
    if isinstance(net, CountingNet):
        assert net.calls == 1


def test_weights_of_what_a_row_lacks_are_not_used() -> None:
    CriaCL(variant=1)
    CriaCL(variant=6, vgg_weights=None)
    CriaCL(variant=3, vgg_weights=None, align_share=0.05, uniformity_weight="no number")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"cria_align: expected one of `align_weight` .* got both"):
        CriaCL(align_weight=0.01, align_share=0.05, uniformity_weight=0.01)


@pytest.mark.parametrize(("row", "roles"), [(3, ["align"]), (4, ["uniformity"]), (7, ["align", "uniformity"])])
def test_with_neither_weight_nor_share_there_is_a_share(row: int, roles: list[str]) -> None:
    weights = CriaCL(variant=row, vgg_weights=None).weights
    for role in roles:
        weight = weights[role]
        assert isinstance(weight, TermWeight)
        assert (weight.fixed, weight.asked) == (None, DEFAULT_SHARE)


def test_the_paper_s_lists(vgg_file: Path) -> None:
    method = CriaCL(align_weight=0.01, uniformity_weight=0.01, vgg_weights=vgg_file)
    assert method.roles["align"] == ("pixel_l1", "ssim", "vgg_relu1_2")
    assert method.roles["uniformity"] == ("pixel_l1", "vgg_conv5_4", "adversarial")
    assert method.sr_criteria == ("vgg_conv5_4", "adversarial")
    weights = {name: weight.fixed for name, weight in method.weights.items()}
    assert weights == {"align": 0.01, "uniformity": 0.01, "vgg_conv5_4": 1.0, "adversarial": 0.005}
    assert {(loss.exponent, loss.t) for loss in method.losses.values()} == {(2, 2)}
    assert len(method.criteria) == 5  # one discriminator, one network up to conv5_4
    net = branches()
    methods = methods_on(net, method)
    losses = losses_of(methods, methods.run(net, pairs()))
    assert {"cria_vgg_conv5_4_raw", "cria_align_vgg_relu1_2_push"} <= set(losses.metrics)
    losses.loss.backward()
    assert all(p.grad is None for p in method.parameters())
    assert {name for name, p in net.named_parameters() if p.grad is None} == set()
    assert not [name for name in method.state_dict() if "features" in name]  # of VGG: 80 MB that never change


def test_the_paper_s_lists_with_vgg16(tmp_path: Path) -> None:
    weights = save_random_vgg(tmp_path / "vgg16.pth", "vgg16")
    method = CriaCL(align_weight=0.01, uniformity_weight=0.01, vgg_weights=weights, vgg_model="vgg16")
    assert method.roles["align"] == ("pixel_l1", "ssim", "vgg16_relu1_2")
    assert method.roles["uniformity"] == ("pixel_l1", "vgg16_conv5_3", "adversarial")
    assert method.sr_criteria == ("vgg16_conv5_3", "adversarial")
    with pytest.raises(ConfigError, match=r"cria: positives\[1\]: .*a vgg16, expected .* vgg19\. Give `model: vgg16`"):
        CriaCL(vgg_weights=weights)
    with pytest.raises(ConfigError, match="cria: vgg_model: expected one of vgg19, vgg16, got 19"):
        CriaCL(vgg_model=19)  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- Table VI


def test_anchors_of_table_vi_are_one_flag(vgg_file: Path) -> None:
    roles = {
        anchor: CriaCL(align_weight=0.01, uniformity_weight=0.01, anchor=anchor, vgg_weights=vgg_file).roles
        for anchor in ("Pixel", "VGG", "Adversarial")
    }
    structure = ("pixel_l1", "ssim", "vgg_relu1_2")
    assert roles["VGG"] == {"align": ("vgg_conv5_4", "adversarial"), "uniformity": ("vgg_conv5_4", *structure)}
    assert roles["Adversarial"] == {"align": ("adversarial", "vgg_conv5_4"), "uniformity": ("adversarial", *structure)}
    with pytest.raises(ConfigError, match=r"without VGG .* has no positives for the anchor 'Adversarial'"):
        cria(anchor="Adversarial")
    with pytest.raises(ConfigError, match="is none of the paper's criteria, so its positives are not known"):
        cria(anchor={"type": "Pixel", "norm": "l2"})
    assert cria(anchor={"type": "Pixel", "norm": "l1"}).roles == cria().roles


# ----------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("masks", ["losses", "images", "none"])
@pytest.mark.parametrize("detach_anchor", [False, True])
def test_terms_are_equations_8_and_9(masks: str, detach_anchor: bool) -> None:
    """By plain loops, with pixel criteria by hand and SSIM by the criterion."""
    net = branches().double()
    methods = methods_on(net, cria(masks=masks, detach_anchor=detach_anchor, sr_criteria=[], **PIXELS)).double()
    batch = methods.run(net, {key: value.double() for key, value in pairs(size=16).items()})
    terms = raw_terms(methods, batch)
    hr, shares = batch["hr"], batch["features/masks"]
    images = {role: batch[f"features/{role}"] for role in ("align", "uniformity")}
    masked = {role: shares[:, index : index + 1] for index, role in enumerate(images)}
    if masks == "images":
        images = {role: masked[role] * image + (1 - masked[role]) * hr for role, image in images.items()}
    pixel = {role: (image - hr).abs().mean(1, keepdim=True) for role, image in images.items()}
    square = (images["align"] - hr).square().mean(1, keepdim=True)
    shape = pixel["align"].shape
    align = alignment_loops(pixel["align"], [square], 2.0, shape)
    uniformity = uniformity_loops(pixel["uniformity"], [SSIM()(images["uniformity"], hr)], 2.0, shape)
    if masks == "losses":
        align, uniformity = align * masked["align"], uniformity * masked["uniformity"]
    torch.testing.assert_close(terms["align"].loss, align.mean())
    torch.testing.assert_close(terms["uniformity"].loss, uniformity.mean())
    # the anchor's part of the alignment's gradient is there, or is not
    (gradient,) = torch.autograd.grad(terms["align"].loss, batch["features/align"], retain_graph=True)
    difference = pixel["align"].detach() - square if detach_anchor else pixel["align"] - square
    weight = masked["align"].detach() if masks != "none" else 1
    if masks == "images":
        return  # the masked image is made inside
    (want,) = torch.autograd.grad((weight * difference.square()).mean(), batch["features/align"], retain_graph=True)
    torch.testing.assert_close(gradient, want)


def test_without_branches_both_terms_are_of_the_sr_image() -> None:
    _, methods, _, batch = ready(5, sr_criteria=[], **PIXELS)
    terms = raw_terms(methods, batch)
    sr, hr = batch["sr"], batch["hr"]
    pixel, square = (sr - hr).abs().mean(1, keepdim=True), (sr - hr).square().mean(1, keepdim=True)
    torch.testing.assert_close(terms["align"].loss, (pixel - square).square().mean())
    torch.testing.assert_close(terms["uniformity"].loss, (2 * (pixel + SSIM()(sr, hr)).square()).mean())
    assert terms["align"].points is None


def test_scalars_and_maps_go_together() -> None:
    """An adversarial criterion is one value an image, weighted by the mask as a map is."""
    method, methods, _, batch = ready()
    value = raw_terms(methods, batch)["uniformity"].loss
    share = batch["features/masks"][:, 1:]
    adversarial = method.criteria["adversarial"](batch["features/uniformity"], batch["hr"])
    pixel = (batch["features/uniformity"] - batch["hr"]).abs().mean(1, keepdim=True)
    torch.testing.assert_close(value, (share * 2 * (pixel + adversarial).square()).mean())


def test_metrics_tell_what_the_terms_do() -> None:
    _, methods, _, batch = ready(sr_criteria=[], **PIXELS)
    terms = raw_terms(methods, batch)
    metrics = {**terms["align"].metrics, **terms["uniformity"].metrics}
    assert metrics["align_pixel_l1"].item() == pytest.approx(F.l1_loss(batch["features/align"], batch["hr"]).item())
    assert_close(metrics["align_mask"], 1 - metrics["uniformity_mask"], "exact", dtype=torch.float32, scale=1)
    # |d| > d^2 below 1: the anchor is lowered, and the square, though it is an error too, is raised
    assert (metrics["align_pixel_l1_push"], metrics["align_pixel_l2_push"]) == (-1, 1)
    assert (metrics["uniformity_pixel_l1_push"], metrics["uniformity_ssim_push"]) == (-1, -1)
    _, fixed, _, batch = ready(sr_criteria=[], detach_anchor=True, **PIXELS)
    assert raw_terms(fixed, batch)["align"].metrics["align_pixel_l1_push"] == 0


def test_normalised_criteria_have_a_running_size_of_one() -> None:
    method, methods, net, batch = ready(normalize=True, sr_criteria=[], **PIXELS)
    terms = raw_terms(methods, batch)
    pixel = (batch["features/align"] - batch["hr"]).abs().mean(1, keepdim=True)
    square = (batch["features/align"] - batch["hr"]).square().mean(1, keepdim=True)
    want = (batch["features/masks"][:, :1] * (pixel / pixel.mean() - square / square.mean()).square()).mean()
    torch.testing.assert_close(terms["align"].loss, want)
    first = method.losses["align"].scales.means.clone()
    torch.testing.assert_close(first, torch.stack((pixel.mean(), square.mean())).detach())
    batch = methods.run(net, {key: 0.1 * images for key, images in pairs(seed=1).items()})
    raw_terms(methods, batch)
    now = torch.stack(
        [(batch["features/align"] - batch["hr"]).abs().mean(), (batch["features/align"] - batch["hr"]).square().mean()]
    )
    torch.testing.assert_close(method.losses["align"].scales.means, 0.99 * first + 0.01 * now.detach())
    # the log's numbers are those of the criteria as they are
    assert losses_of(methods, batch).metrics["cria_align_pixel_l1"].item() == pytest.approx(now[0].item())


# ----------------------------------------------------------------------------------------------------- who learns


@pytest.mark.parametrize("masks", ["losses", "images"])
@pytest.mark.parametrize("train_masks", [False, True])
def test_each_term_trains_its_branch_and_the_trunk(masks: str, train_masks: bool) -> None:
    _, methods, net, batch = ready(masks=masks, train_masks=train_masks, sr_criteria=[])
    terms = raw_terms(methods, batch)
    for role in ("align", "uniformity"):
        net.zero_grad()
        terms[role].loss.backward(retain_graph=True)
        trained = {name.split(".")[0] for name, p in net.named_parameters() if p.grad is not None}
        assert trained == {"trunk", role} | ({"masks"} if train_masks else set())
    assert all(p.grad is None for p in methods.parameters())


def test_trained_masks_look_away_from_what_is_large() -> None:
    """Why they are not trained by the two terms unless that is asked for."""
    _, methods, net, _ = ready(train_masks=True, sr_criteria=[])
    assert isinstance(net, CriteriaBranches)
    optimizer = torch.optim.Adam(net.masks.parameters(), lr=1e-2)
    seen = []
    for _ in range(40):
        losses = losses_of(methods, methods.run(net, pairs(size=32)))
        seen.append(losses.metrics["cria_uniformity_mask"].item())
        optimizer.zero_grad()
        losses.loss.backward()
        optimizer.step()
    assert seen[0] > 0.3
    assert seen[-1] < 0.1


def test_sr_step_leaves_the_discriminator_and_its_own_step_leaves_the_network() -> None:
    _, methods, net, batch = ready()
    sum(methods(batch).values()).backward()
    assert all(p.grad is None for p in net.parameters())
    assert all(p.grad is not None for p in methods.parameters())
    methods.zero_grad()
    losses_of(methods, batch).loss.backward()
    assert all(p.grad is not None for p in net.parameters())
    assert all(p.grad is None for p in methods.parameters())


@pytest.mark.parametrize("masks", ["losses", "images", "none"])
@pytest.mark.parametrize(("row", "fakes"), [(2, 1), (5, 1), (6, 1), (7, 2)])
def test_the_discriminator_learns_from_all_images_that_it_judges(
    row: int, fakes: int, masks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, methods, _, batch = ready(row, masks=masks)
    learned: list[Tensor] = []
    judged: list[Tensor] = []

    def learn(hr: Tensor, images: list[Tensor]) -> Tensor:
        learned.extend(images)
        return torch.stack([p.mean() for p in method.criteria["adversarial"].parameters()]).sum()

    def judge(sr: Tensor, hr: Tensor) -> Tensor:
        judged.append(sr)
        return sr.mean((1, 2, 3), keepdim=True)

    monkeypatch.setattr(method.criteria["adversarial"], "discriminator_loss", learn)
    monkeypatch.setattr(method.criteria["adversarial"], "forward", judge)
    methods(batch)
    losses_of(methods, batch)
    assert len(learned) == len(judged) == fakes
    assert any(torch.equal(image, batch["sr"]) for image in learned)
    assert not any(image.requires_grad for image in learned)
    for image in judged:
        assert any(torch.equal(image, other) for other in learned)
    if row == 7:
        assert any(torch.equal(image, batch["features/uniformity"]) for image in judged) == (masks != "images")


def test_shares_are_kept_at_the_branches_images() -> None:
    _, methods, net, _ = ready(align_share=0.05, uniformity_share=0.2, sr_criteria=[])
    assert isinstance(net, CriteriaBranches)
    for _ in range(8):
        batch = methods.run(net, pairs())
        pixel = 0.01 * F.l1_loss(batch["sr"], batch["hr"])
        terms = raw_terms(methods, batch)
        metrics = methods.sr_losses(batch, pixel).metrics
    for role, share in (("align", 0.05), ("uniformity", 0.2)):
        point = [batch[f"features/{role}"]]
        weighted = metrics[f"cria_{role}_weight"] * terms[role].loss
        (ours,) = torch.autograd.grad(weighted, point, retain_graph=True)
        (host,) = torch.autograd.grad(pixel, point, retain_graph=True)
        assert_close(ours.norm() / host.norm(), share, "loose", dtype=torch.float32)


def test_training_goes_on_bit_for_bit() -> None:
    def steps(net: nn.Module, numbers: range, states: Any = None) -> Any:
        training = Training(net, methods_on(net, cria(normalize=True, align_share=0.05)), pixel_weight=0.01)
        if states is not None:
            for part, state in zip(training.parts, states, strict=True):
                part.load_state_dict(state)
        for number in numbers:
            training.step(pairs(seed=number))
        return [part.state_dict() for part in training.parts]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole = steps(branches(), range(4))
        half = steps(branches(), range(2))
        resumed = steps(branches(seed=5), range(2, 4), half)
    assert_same(whole, resumed)


def test_autocast_changes_little() -> None:
    contrasts = []
    for enabled in (False, True):
        net = branches()
        methods = methods_on(net, cria())
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            batch = methods.run(net, pairs())
            losses = losses_of(methods, batch)
        losses.loss.backward()
        contrasts.append(losses)
        assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)
    for name, value in contrasts[0].metrics.items():
        if not name.endswith("_share"):
            torch.testing.assert_close(contrasts[1].metrics[name], value, rtol=0.05, atol=0.02)


def test_modules_of_plain_pytorch_are_criteria_too() -> None:
    _, methods, _, batch = ready(5, anchor=nn.L1Loss(reduction="none"), positives=[nn.MSELoss()], negatives=["SSIM"])
    logs = losses_of(methods, batch).metrics
    assert logs["cria_align_mse"].item() == pytest.approx(F.mse_loss(batch["sr"], batch["hr"]).item())
    assert logs["cria_uniformity_l1"].item() == pytest.approx(F.l1_loss(batch["sr"], batch["hr"]).item())


def test_beside_another_method() -> None:
    configs: list[dict[str, Any]] = [
        {"type": "CriaCL", "align_weight": 0.01, "uniformity_weight": 0.01, "vgg_weights": None},
        {"type": "PCL", "every": 1, "loss_weight": 0.0004},
    ]
    methods, net = build_methods(configs), branches()
    methods.attach(net)
    batch = methods.run(net, pairs())
    assert set(losses_of(methods, batch).metrics) > {"cria_align", "pcl_contrastive"}


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": 8}, "variant: expected one of 1, 2, 3, 4, 5, 6, 7, got 8"),
        ({"variant": True}, "variant: expected one of"),
        ({"variant": [7]}, r"variant: expected one of .*got \[7\]"),
        ({"variant": 7.0}, r"variant: expected one of .*got 7\.0"),
        ({"masks": "image"}, "masks: expected one of losses, images, none, got 'image'"),
        ({"train_masks": "no"}, "train_masks: expected true or false"),
        ({"detach_anchor": 1}, "detach_anchor: expected true or false"),
        ({"exponent": 0.5}, "exponent: expected a number of at least 1"),
        ({"t": 0}, "t: expected a number above 0"),
        ({"anchor": "Pixl"}, r"anchor: does not know the type 'Pixl'\. Did you mean 'Pixel'\?"),
        ({"anchor": "Pixl", "positives": ["SSIM"]}, r"anchor: does not know the type 'Pixl'\. Did you mean 'Pixel'\?"),
        ({"positives": ["SIM"]}, r"positives\[0\]: does not know the type 'SIM'\. Did you mean 'SSIM'\?"),
        ({"positives": ["SSIM", "Pixel"]}, r"positives\[1\]: .* differ, got 'pixel_l1', which is the anchor too"),
        ({"negatives": ["Pixel"]}, r"negatives\[0\]: .* which is the anchor too. Take it out"),
        ({"positives": ["SSIM", {"type": "SSIM"}]}, "'ssim', which is another of the positives too"),
        (
            {"positives": [nn.L1Loss()]},
            r"positives\[0\]: .* 'l1', which is always a multiple of 'pixel_l1'. Take it out",
        ),
        (
            {"positives": ["SSIM"], "negatives": [{"type": "Pixel", "norm": "l2"}, nn.MSELoss()]},
            r"negatives\[1\]: .* 'mse', which is always a multiple of 'pixel_l2'",
        ),
        ({"positives": []}, "positives: expected a list of at least one criterion"),
        ({"negatives": "SSIM"}, "negatives: expected a list of at least one criterion"),
        ({"positives": ["VGG"]}, r"positives\[0\]: VGG needs pretrained weights, and `vgg_weights` is null"),
        (
            {"vgg_weights": "nowhere.pth"},
            r"cria: positives\[1\]: VGGFeatures\(weights\): expected an existing file, got nowhere.pth",
        ),
        ({"sr_criteria": ["Adversarial"]}, r"sr_criteria: expected a list of mappings, e\.g\. .*weight: 0\.005"),
        ({"sr_criteria": [{"type": "Adversarial"}]}, r"sr_criteria\[0\]: expected one of `weight` and `share`"),
        (
            {"sr_criteria": [{"type": "Adversarial", "weight": "1e-3"}]},
            r"sr_criteria\[0\]: weight: expected a num",
        ),
        ({"sr_criteria": [{"type": "SSIM", "weight": 1}] * 2}, "there is a term 'ssim' already"),
        ({"sr_criteria": [{"type": "SSIM", "weight": 1, "name": "align"}], "positives": ["Adversarial"]}, "a term 'al"),
        ({"name": "my loss"}, "name: expected a word"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        cria(**arguments)


def test_a_criterion_on_both_sides_is_said() -> None:
    with pytest.warns(UserWarning, match="cria: ssim among positives and negatives at once"):
        cria(positives=["SSIM"], negatives=["SSIM", "Adversarial"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cria()


@pytest.mark.parametrize(
    ("tilt", "role", "advice"),
    [(20.0, "uniformity", "a smaller uniformity_share"), (-20.0, "align", "align_share, e.g. 0.05")],
)
def test_a_branch_that_the_masks_leave_alone_is_said_once(tilt: float, role: str, advice: str) -> None:
    _, methods, net, _ = ready(7, align_weight=1e-6, uniformity_share=1e-6, sr_criteria=[], **PIXELS)
    with torch.no_grad():
        net.masks.last.bias.copy_(torch.tensor([tilt, -tilt]))
    said = []
    for _ in range(LOOK_INTERVAL + 1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            batch = methods.run(net, pairs(size=32))
            methods.sr_losses(batch, F.l1_loss(batch["sr"], batch["hr"]))
        said += [str(warning.message) for warning in caught if "the masks leave" in str(warning.message)]
    assert len(said) == 1
    assert f"the branch {role!r} alone" in said[0]
    assert advice in said[0]


class Wrong(CriteriaBranches):
    """With one branch that gives something else."""

    def __init__(self, part: str, by: nn.Module) -> None:
        super().__init__(EDSR())
        setattr(self, part, nn.Sequential(getattr(self, part), by))

    def forward(self, lr: Tensor) -> Tensor:
        features = self.trunk(lr)
        align, uniformity, masks = self.align(features), self.uniformity(features), self.masks(lr)
        assert align.ndim + uniformity.ndim + masks.ndim == 12
        return F.interpolate(lr, scale_factor=4)


@pytest.mark.parametrize(
    ("row", "net", "message"),
    [
        (
            7,
            CountingNet(),
            "variant 7 needs .* the modules align, uniformity, masks; CountingNet has no align, uniformity, masks",
        ),
        (6, CountingNet(), "Take CriteriaBranches, e.g. .* or a variant from 1 to 5"),
        (5, branches(), "variant 5 has no branches and masks, but the SR network, CriteriaBranches, has"),
        (2, branches(), "Take its trunk as the network, or variant 6 or 7"),
        (7, Wrong("masks", nn.AvgPool2d(4)), r"'masks' to give \(1, 2, 128, 128\), .* got \(1, 2, 32, 32\)"),
        (7, Wrong("masks", nn.Conv2d(2, 1, 1)), r"'masks' to give \(1, 2, 128, 128\), .* got \(1, 1, 128, 128\)"),
        (7, Wrong("uniformity", nn.Upsample(scale_factor=2)), r"'uniformity' to give \(1, 3, 128, 128\)"),
    ],
)
def test_networks_that_do_not_go_with_the_row(row: int, net: nn.Module, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        methods_on(net, cria(variant=row))


def test_the_released_network_is_trained_by_its_sr_image() -> None:
    """Its branches make no images."""
    stock = nn.Sequential(nn.Conv2d(3, 48, 3, padding=1), nn.PixelShuffle(4))
    net = CriteriaBranches(stock, variant="released")
    for variant in (6, 7):
        with pytest.raises(ConfigError, match=r"Take its variant 'paper', .* or a variant from 1 to 5"):
            Methods([cria(variant=variant)]).attach(net)
    methods = Methods([cria(variant=5)])
    methods.attach(net)
    batch = methods.run(net, pairs())
    pixel_loss = F.l1_loss(batch["sr"], batch["hr"])
    methods.sr_losses(batch, pixel_loss).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_a_network_that_was_not_attached_is_refused_too() -> None:
    methods = methods_on(branches(), cria())
    with pytest.raises(ConfigError, match="CountingNet does not know the layer 'align'"):
        methods.run(CountingNet(), pairs())


def test_patches_that_a_criterion_cannot_take() -> None:
    net = branches()
    with pytest.raises(DataError, match="RGBDiscriminator: expected HR patches of at least 16 x 16 pixels, got 12"):
        methods_on(net, cria()).run(net, pairs(size=12))
    with pytest.raises(DataError, match="SSIM: expected HR patches of at least 11 x 11 pixels, got 8 x 8"):
        methods_on(net, cria(sr_criteria=[], **PIXELS)).run(net, pairs(size=8))
