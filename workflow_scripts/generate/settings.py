"""How sampling runs, beside what the family has to know (`SampleSettings`)."""

from dataclasses import dataclass
from typing import Annotated, Literal

from workflow_scripts.common.settings import Key

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class BatchSettings:
    """How many images are sampled at once, and in which arithmetic."""

    batch_size: Annotated[int, Key("Images sampled at once.", minimum=1)]
    precision: Annotated[
        Precision,
        Key(
            "Of weights and arithmetic; fp32 by default. SDXL's autoencoder decodes in fp32 in any "
            "case.",
            optional=True,
        ),
    ] = "fp32"
