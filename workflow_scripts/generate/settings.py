"""Settings of sampling that no family has to know (the others are in `SampleSettings`)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from workflow_scripts.common.settings import Key

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class BatchSettings:
    """The batch size and the precision of sampling."""

    batch_size: Annotated[int, Key("Number of images sampled at once.", minimum=1)]
    precision: Annotated[
        Precision,
        Key(
            "Precision of weights and arithmetic; fp32 by default. SDXL's autoencoder always "
            "decodes in fp32.",
            optional=True,
        ),
    ] = "fp32"
