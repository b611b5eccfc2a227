"""Layers whose weights are laid out once: they do what the plain ones do, for any number of rows."""

from collections.abc import Iterator
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from models.packed import Packed, can_pack, pack

CPU = torch.device("cpu")
LAYERS = {
    "linear": (nn.Linear(24, 33), (24,)),
    "linear without a bias": (nn.Linear(24, 33, bias=False), (24,)),
    "1 x 1": (nn.Conv2d(24, 3, 1, bias=False), (24, 6, 5)),
    "grouped": (nn.Conv2d(32, 32, 3, padding=1, groups=4), (32, 6, 5)),
    "halving": (nn.Conv2d(8, 20, 4, stride=2, padding=1), (8, 6, 6)),
    "doubling": (nn.ConvTranspose2d(24, 20, 4, stride=2, padding=1), (24, 3, 5)),
    "doubling to colours": (nn.ConvTranspose2d(24, 3, 4, stride=2, padding=1), (24, 3, 5)),
    "doubling to gray, no bias": (nn.ConvTranspose2d(24, 1, 4, stride=2, padding=1, bias=False), (24, 3, 5)),
    "another kernel": (nn.ConvTranspose2d(24, 3, 3, stride=2, padding=1, output_padding=1), (24, 3, 5)),
}
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.03}
DTYPES = [dtype for dtype in TOLERANCES if can_pack(CPU, dtype)]  # bf16 is not every CPU's


@torch.no_grad()
def packed(name: str, dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """The packed layer, inputs [16, ...], and what the plain layer makes of them in float64."""
    layer, shape = LAYERS[name]
    dice = torch.Generator().manual_seed(0)
    network = nn.Sequential(deepcopy(layer))
    for parameter in network.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=dice) * 0.2)
    network = network.to(dtype)
    x = torch.randn(16, *shape, generator=dice).to(dtype)
    expected = deepcopy(network).double()(x.double())
    pack(network)
    assert any(isinstance(module, Packed) for module in network.modules())
    return network, x, expected


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_a_packed_layer_does_what_the_plain_one_does(name: str, dtype: torch.dtype) -> None:
    """But for rounding, whether channels are first or last in memory."""
    network, x, expected = packed(name, dtype)
    scale, tolerance = expected.abs().max().item(), TOLERANCES[dtype]
    layouts = [x] if x.ndim == 2 else [x, x.to(memory_format=torch.channels_last)]
    with torch.inference_mode():
        for each in layouts:
            torch.testing.assert_close(network(each).double(), expected, atol=tolerance * scale, rtol=tolerance)


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh()], ids=str)
@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_an_activation_is_done_by_the_layer(name: str, activation: nn.Module) -> None:
    """It goes out of the network, and the result stays what it was."""
    layer, shape = LAYERS[name]
    network = nn.Sequential(deepcopy(layer), deepcopy(activation))
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    pack(network, [tuple(network)])
    assert type(activation) not in {type(module) for module in network.modules()}
    with torch.inference_mode():
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_an_activation_that_no_operation_knows_stays() -> None:
    """And is done by itself."""
    network = nn.Sequential(nn.Linear(24, 33), nn.Softsign())
    x = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
    expected = network(x)
    pack(network, [tuple(network)])
    assert isinstance(network[1], nn.Softsign)
    with torch.inference_mode():
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As samplers have unless told otherwise; several divide the sums of few rows in other ways, and shapes are verified for them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", LAYERS)
def test_a_row_does_not_depend_on_its_company(name: str) -> None:
    """To the bit, also when the weights were laid out for another number of rows."""
    network, x, _ = packed(name, torch.float32)
    with torch.inference_mode():
        together = network(x)
        for n in (1, 2, 5, 8):
            assert all(torch.equal(network(x[at : at + n]), together[at : at + n]) for at in (0, 3))


def test_the_operations_are_there() -> None:
    """Without them generators would be served by plain layers, at half the speed."""
    assert can_pack(CPU, torch.float32)
    assert not can_pack(torch.device("cuda"), torch.float32)
