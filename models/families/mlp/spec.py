"""The fully connected GAN of the founding article; any small image."""

from typing import Literal

from models.config import ConfigError, DataSpec, NetworkOptions
from models.families import FamilySpec

MAX_VALUES = 65_536  # of one example: the discriminator's first layer has 1,024 weights for each


class MlpOptions(NetworkOptions):
    """The article fixes every layer, so there is nothing more to choose."""

    family: Literal["mlp"] = "mlp"


def check(_options: MlpOptions, data: DataSpec) -> None:
    values = data.height * data.width * data.channels
    if values > MAX_VALUES:
        detail = (
            f"mlp takes at most {MAX_VALUES:,} values an example and these have {values:,}"
            f" ({data.height} x {data.width} x {data.channels}); use dcgan, or prepare the data set smaller"
        )
        raise ConfigError([("/network/family", detail)])


SPEC = FamilySpec(
    name="mlp",
    summary="The fully connected networks of the founding article: a generator of ten hidden layers, a discriminator of six.",
    options=MlpOptions,
    check=check,
)
