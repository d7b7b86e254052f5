"""Networks as their authors' code lays them out, with the names of their checkpoints; written from that layout."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import spectral_norm

MEAN = (0.4488, 0.4371, 0.4040)


def conv(inputs: int, outputs: int, size: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2)


class Named(nn.Module):
    """A module with parts of these names."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def __getattr__(self, name: str) -> nn.Module:
        part: nn.Module = super().__getattr__(name)
        return part


def mean_shift(sign: int) -> nn.Conv2d:
    """EDSR-PyTorch's layer for the mean colour of images in [0, 255]."""
    shift = conv(3, 3, 1)
    nn.init.dirac_(shift.weight)
    shift.bias = nn.Parameter(sign * 255 * torch.tensor(MEAN))
    return shift


def tail(channels: int, scale: int) -> nn.Sequential:
    """EDSR-PyTorch's upsampling and last convolution."""
    layers: list[nn.Module] = []
    for factor in (2, 2) if scale == 4 else (scale,):
        layers += [conv(channels, channels * factor**2), nn.PixelShuffle(factor)]
    return nn.Sequential(nn.Sequential(*layers), conv(channels, 3))


# ----------------------------------------------------------------------------------------------------------------- DASR


class ReleasedDASR(nn.Module):
    """DASR: ``G`` and, in ``E``, the encoder, its momentum copy and the queue; images in [0, 255]."""

    def __init__(self, scale: int, channels: int = 64, groups: int = 5, blocks: int = 5) -> None:
        super().__init__()
        self.channels = channels
        body = [
            Named(body=nn.Sequential(*(self._block(channels) for _ in range(blocks)), conv(channels, channels)))
            for _ in range(groups)
        ]
        self.G = Named(
            sub_mean=mean_shift(-1),
            add_mean=mean_shift(1),
            head=nn.Sequential(conv(3, channels)),
            compress=nn.Sequential(nn.Linear(256, 64, bias=False), nn.LeakyReLU(0.1)),
            body=nn.Sequential(*body, conv(channels, channels)),
            tail=tail(channels, scale),
        )
        self.E = Named(encoder_q=self._encoder(), encoder_k=self._encoder())
        self.E.register_buffer("queue", torch.randn(256, 32))
        self.E.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @staticmethod
    def _block(channels: int) -> Named:
        def aware() -> Named:
            # the authors' network has 64 channels, as many as the compressed representation
            inner, outer = (nn.Conv2d(a, b, 1, bias=False) for a, b in ((64, channels // 8), (channels // 8, channels)))
            attention = nn.Sequential(inner, nn.LeakyReLU(0.1), outer, nn.Sigmoid())
            kernel = (nn.Linear(64, 64, bias=False), nn.LeakyReLU(0.1), nn.Linear(64, 9 * channels, bias=False))
            return Named(kernel=nn.Sequential(*kernel), conv=conv(channels, channels, 1), ca=Named(conv_du=attention))

        convolutions = {f"conv{index}": conv(channels, channels) for index in (1, 2)}
        return Named(da_conv1=aware(), da_conv2=aware(), **convolutions)

    @staticmethod
    def _encoder() -> Named:
        widths, layers = (3, 64, 64, 128, 128, 256, 256), []
        for index in range(6):
            layers += [conv(widths[index], widths[index + 1], stride=2 if index in (2, 4) else 1)]
            layers += [nn.BatchNorm2d(widths[index + 1]), nn.LeakyReLU(0.1)]
        mlp = nn.Sequential(nn.Linear(256, 256), nn.LeakyReLU(0.1), nn.Linear(256, 256))
        return Named(E=nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1)), mlp=mlp)

    def representation(self, images: Tensor) -> Tensor:
        return self.E.encoder_q.E(images)[:, :, 0, 0]

    def forward(self, images: Tensor) -> Tensor:
        r = self.G.compress(self.representation(images))
        first = x = self.G.head(self.G.sub_mean(images))
        *groups, last = self.G.body
        for group in groups:
            inner = x
            *blocks, after = group.body
            for block in blocks:
                out = F.leaky_relu(self._aware(block.da_conv1, inner, r), 0.1)
                out = F.leaky_relu(block.conv1(out), 0.1)
                inner = inner + block.conv2(F.leaky_relu(self._aware(block.da_conv2, out, r), 0.1))
            x = x + after(inner)
        return self.G.add_mean(self.G.tail(first + last(x)))

    def _aware(self, part: Named, x: Tensor, r: Tensor) -> Tensor:
        kernels = part.kernel(r).view(len(x), self.channels, 1, 3, 3)
        filtered = [F.conv2d(x[i : i + 1], kernels[i], padding=1, groups=self.channels) for i in range(len(x))]
        return part.conv(F.leaky_relu(torch.cat(filtered), 0.1)) + x * part.ca.conv_du(r[:, :, None, None])


def released_dasr(scale: int = 4, **arguments: int) -> ReleasedDASR:
    """The network with weights, and BatchNorm's statistics, that differ from those of a new one."""
    torch.manual_seed(scale)
    net = ReleasedDASR(scale, **arguments)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.running_mean, std=5)
            nn.init.uniform_(part.running_var, 0.5, 3)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
    return net.eval()


# ----------------------------------------------------------------------------------------------------------- RealSR-CCL


class ReleasedCria(nn.Module):
    """RealSR-CCL: an RRDBNet with the names of ESRGAN's first code, and branches and mask that read its image."""

    def __init__(self, channels: int = 64, blocks: int = 23, growth: int = 32) -> None:
        super().__init__()

        def dense() -> Named:
            widths = [growth] * 4 + [channels]
            return Named(**{f"conv{i + 1}": conv(channels + i * growth, width) for i, width in enumerate(widths)})

        def branch() -> list[nn.Module]:
            return [self._block(inputs) for inputs in (3, 64, 64)]

        self.conv_first = conv(3, channels)
        self.RRDB_trunk = nn.Sequential(*(Named(RDB1=dense(), RDB2=dense(), RDB3=dense()) for _ in range(blocks)))
        self.trunk_conv, self.upconv1, self.upconv2, self.HRconv = (conv(channels, channels) for _ in range(4))
        self.conv_last = conv(channels, 3)
        self.branch1, self.branch2 = nn.Sequential(*branch()), nn.Sequential(*branch())
        self.sm = nn.Sequential(*branch(), nn.Softmax(dim=1))
        self.tail_conv1, self.tail_conv2 = conv(64, 3), conv(64, 3)

    @staticmethod
    def _block(inputs: int) -> Named:
        layers = (conv(inputs, 64), nn.LeakyReLU(0.2), conv(64, 64), nn.LeakyReLU(0.2))
        return Named(block=nn.Sequential(*layers), conv=conv(inputs, 64, 1))

    def forward(self, lr: Tensor) -> Tensor:
        first = x = self.conv_first(lr)
        for block in self.RRDB_trunk:
            out = x
            for dense in block.children():
                maps = [out]
                for index, layer in enumerate(dense.children()):
                    made = layer(torch.cat(maps, 1))
                    maps.append(made if index == 4 else F.leaky_relu(made, 0.2))
                out = maps[-1] * 0.2 + out
            x = out * 0.2 + x
        x = first + self.trunk_conv(x)
        for up in (self.upconv1, self.upconv2):
            x = F.leaky_relu(up(x.repeat_interleave(2, -1).repeat_interleave(2, -2)), 0.2)
        image = self.conv_last(F.leaky_relu(self.HRconv(x), 0.2))
        mask = self._run(self.sm[:3], image).softmax(1)
        second = self.tail_conv2((1 - mask) * self._run(self.branch2, image))
        return self.tail_conv1(mask * self._run(self.branch1, image)) + second

    @staticmethod
    def _run(blocks: nn.Sequential, x: Tensor) -> Tensor:
        for block in blocks:
            x = block.block(x) + block.conv(x)
        return x


# -------------------------------------------------------------------------------------------------------------- ContraD


class ReleasedContraD(nn.Module):
    """ContraD's discriminator ``snresnet18``, under PyTorch's first ``spectral_norm``; images of 32 x 32."""

    def __init__(self, hidden: int = 1024) -> None:
        super().__init__()
        self.linear = Named(l1=nn.Linear(512, hidden), l2=nn.Linear(hidden, 1))
        self.projection, self.projection2 = (
            nn.Sequential(nn.Linear(512, hidden), nn.LeakyReLU(0.1), nn.Linear(hidden, 128)) for _ in range(2)
        )
        self.conv1 = conv(3, 64)
        widths = (64, 64, 128, 256, 512)
        for index in range(1, 5):
            stride = 1 if index == 1 else 2
            blocks = self._block(widths[index - 1], widths[index], stride), self._block(*[widths[index]] * 2, 1)
            self.add_module(f"layer{index}", nn.Sequential(*blocks))
        for part in list(self.modules()):
            if isinstance(part, (nn.Conv2d, nn.Linear)):
                spectral_norm(part)

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int) -> Named:
        changes = stride > 1 or inputs != outputs
        shortcut = nn.Sequential(*[nn.Conv2d(inputs, outputs, 1, stride)] * changes)
        return Named(conv1=conv(inputs, outputs, stride=stride), conv2=conv(outputs, outputs), shortcut=shortcut)

    def maps(self, images: Tensor) -> Sequence[Tensor]:
        x, maps = F.leaky_relu(self.conv1(2 * images - 1), 0.1), []
        for index in range(1, 5):
            for block in self.get_submodule(f"layer{index}"):
                x = F.leaky_relu(block.conv2(F.leaky_relu(block.conv1(x), 0.1)) + block.shortcut(x), 0.1)
            maps.append(x)
        return maps

    def forward(self, images: Tensor) -> Tensor:
        vectors = F.avg_pool2d(self.maps(images)[-1], 4).flatten(1)
        return self.linear.l2(F.leaky_relu(self.linear.l1(vectors), 0.1))


# ------------------------------------------------------------------------------------------- EDSR-PyTorch and its heirs


class ReleasedRCAN(nn.Module):
    """The original RCAN; images in [0, 255]."""

    def __init__(self, scale: int = 4, channels: int = 16, groups: int = 2, blocks: int = 2) -> None:
        super().__init__()
        body = [
            Named(body=nn.Sequential(*(self._block(channels) for _ in range(blocks)), conv(channels, channels)))
            for _ in range(groups)
        ]
        self.sub_mean, self.add_mean = mean_shift(-1), mean_shift(1)
        self.head = nn.Sequential(conv(3, channels))
        self.body = nn.Sequential(*body, conv(channels, channels))
        self.tail = tail(channels, scale)

    @staticmethod
    def _block(channels: int) -> Named:
        attention = nn.Sequential(conv(channels, 4, 1), nn.ReLU(), conv(4, channels, 1), nn.Sigmoid())
        layers = (conv(channels, channels), nn.ReLU(), conv(channels, channels))
        return Named(body=nn.Sequential(*layers, Named(conv_du=attention)))

    def forward(self, images: Tensor) -> Tensor:
        first = x = self.head(self.sub_mean(images))
        *groups, last = self.body
        for group in groups:
            inner = x
            *blocks, after = group.body
            for block in blocks:
                *layers, attention = block.body
                out = nn.Sequential(*layers)(inner)
                inner = inner + out * attention.conv_du(out.mean((2, 3), keepdim=True))
            x = x + after(inner)
        return self.add_mean(self.tail(first + last(x)))


def _edsr_state(*before: nn.Module) -> dict[str, Tensor]:
    block = Named(body=nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8)))
    parts = {"sub_mean": mean_shift(-1), "add_mean": mean_shift(1), "head": nn.Sequential(conv(3, 8))}
    return Named(**parts, body=nn.Sequential(*before, block, conv(8, 8)), tail=tail(8, 4)).state_dict()


def edsr_state() -> dict[str, Tensor]:
    """Of EDSR-PyTorch's EDSR."""
    return _edsr_state()


def han_state() -> dict[str, Tensor]:
    """Of HAN: RCAN's names, and its attentions'."""
    attention = {"csa.gamma": torch.zeros(1), "csa.conv.weight": torch.rand(1, 1, 3, 3, 3), "la.gamma": torch.zeros(1)}
    last = {"last_conv.weight": torch.rand(16, 176, 3, 3), "last.weight": torch.rand(16, 32, 3, 3)}
    return {**ReleasedRCAN().state_dict(), **attention, **last}


def nlsn_state() -> dict[str, Tensor]:
    """Of NLSN: EDSR-PyTorch's names, with an attention before the first block."""
    return _edsr_state(Named(conv_match=nn.Sequential(conv(8, 2)), conv_assembly=nn.Sequential(conv(8, 8, 1))))
