"""What engine and presets are compared with: the loop that everybody writes first, and the DCGAN that goes with it."""

import argparse
import math
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad, relu, softplus

from bench.runs import Images
from models.generator import to_uint8
from worker.data.prepared import Data

WIDTH, BATCH, RATE, Z_DIM = 32, 64, 2e-4, 100
BASE = 4  # pixels of the side that the generator starts from
INITIAL_STD = 0.02
AT_A_TIME = 250


class Plain:
    """float32, contiguous, torch.optim.Adam as it comes; no average, no penalty, no account of itself."""

    def __init__(self, G: nn.Module, D: nn.Module, data: Data, *, z_dim: int, batch_size: int, rate: float) -> None:
        self.G, self.D, self.data, self.z_dim, self.batch_size = G, D, data, z_dim, batch_size
        self.device = next(G.parameters()).device
        self.adam_g = torch.optim.Adam(G.parameters(), lr=rate, betas=(0.5, 0.999))
        self.adam_d = torch.optim.Adam(D.parameters(), lr=rate, betas=(0.5, 0.999))

    def step(self) -> None:
        n = self.batch_size
        rows = torch.randint(0, len(self.data.labels), (n,)).numpy()
        real = torch.from_numpy(self.data.examples[rows]).permute(0, 3, 1, 2).contiguous().to(self.device) / 127.5 - 1
        labels = torch.from_numpy(self.data.labels[rows]).to(self.device)
        fake = self.G(torch.randn(n, self.z_dim, device=self.device), labels)
        self.adam_d.zero_grad()
        (softplus(-self.D(real, labels)).mean() + softplus(self.D(fake.detach(), labels)).mean()).backward()
        self.adam_d.step()
        self.adam_g.zero_grad()
        softplus(-self.D(fake, labels)).mean().backward()
        self.adam_g.step()

    def train(self, seconds: float) -> tuple[int, float]:
        """For so many seconds; how many examples it saw, and the seconds it took."""
        steps, started = 0, time.perf_counter()
        while time.perf_counter() - started < seconds:
            self.step()
            steps += 1
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return steps * self.batch_size, time.perf_counter() - started

    def rate(self, seconds: float) -> float:
        """Images a second over so many seconds."""
        examples, took = self.train(seconds)
        return examples / took

    @torch.inference_mode()
    def draw(self, n: int) -> np.ndarray:
        """uint8 [n, H, W, C], of a model without classes."""
        self.G.eval()
        sizes = [min(AT_A_TIME, n - first) for first in range(0, n, AT_A_TIME)]
        images = [to_uint8(self.G(torch.randn(size, self.z_dim, device=self.device))) for size in sizes]
        self.G.train()
        return np.concatenate(images)


class Generator(nn.Module):
    """z [n, Z_DIM] to images [n, C, H, W]: the middle of a square whose side is BASE times a power of two. Labels are not looked at."""

    def __init__(self, data: Data, widths: list[int]) -> None:
        super().__init__()
        self.shape = (data.spec.height, data.spec.width)
        self.base = nn.ConvTranspose2d(Z_DIM, widths[0], BASE, bias=False)
        outs = [*widths[1:], data.spec.channels]
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.stages = nn.ModuleList(nn.ConvTranspose2d(a, b, 4, 2, 1) for a, b in zip(widths, outs, strict=True))

    def forward(self, z: Tensor, _labels: Tensor | None = None) -> Tensor:
        x = self.base(z[:, :, None, None])
        for norm, stage in zip(self.norms, self.stages, strict=True):
            x = stage(relu(norm(x)))
        height, width = self.shape
        top, left = (x.shape[2] - height) // 2, (x.shape[3] - width) // 2
        return torch.tanh(x[:, :, top : top + height, left : left + width])


class Discriminator(nn.Module):
    """Images [n, C, H, W], with a margin of black, to logits [n]. Labels are not looked at."""

    def __init__(self, data: Data, widths: list[int]) -> None:
        super().__init__()
        side = BASE << len(widths)
        down, across = side - data.spec.height, side - data.spec.width
        self.margin = (across // 2, across - across // 2, down // 2, down - down // 2)
        ins = [data.spec.channels, *widths]
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 4, 2, 1) for a, b in zip(ins, widths, strict=False))
        self.norms = nn.ModuleList([nn.Identity(), *(nn.BatchNorm2d(width) for width in widths[1:])])
        self.head = nn.Conv2d(widths[-1], 1, BASE)

    def forward(self, x: Tensor, _labels: Tensor | None = None) -> Tensor:
        x = pad(x, self.margin, value=-1.0)
        for stage, norm in zip(self.stages, self.norms, strict=True):
            x = leaky_relu(norm(stage(x)), 0.2)
        return self.head(x).flatten()


def plain_dcgan(data: Data, seed: int, device: torch.device) -> Plain:
    """Of 32 base channels, a batch of 64 and Adam at 2e-4; after Radford, Metz, Chintala 2015 (arXiv:1511.06434)."""
    doublings = max(1, math.ceil(math.log2(max(data.spec.height, data.spec.width) / BASE)))
    widths = [WIDTH << stage for stage in range(doublings)]
    torch.manual_seed(seed)
    G, D = Generator(data, widths[::-1]).to(device), Discriminator(data, widths).to(device)
    for network in (G, D):
        for parameter in network.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, 0.0, INITIAL_STD)
    return Plain(G, D, data, z_dim=Z_DIM, batch_size=BATCH, rate=RATE)


def train_plain(options: argparse.Namespace, data: Data) -> tuple[dict[str, Any], Images]:
    """A plain DCGAN trained for `options.seconds`: how it went, and its samples."""
    plain = plain_dcgan(data, options.seed, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    examples, seconds = plain.train(options.seconds)
    about = {"by": "plain DCGAN", "seconds": round(seconds, 1), "evaluating": 0.0, "examples": examples}
    return about, plain.draw(options.samples)
