"""What the benchmarks compute on: tables that follow the workflow's schemas, and pictures."""

import numpy as np
import pandas as pd
import pyarrow as pa
from PIL import Image


def with_nulls(frame: pd.DataFrame, schema: pa.Schema) -> pd.DataFrame:
    """Return a table with the columns of a schema (common/manifest.py) that it lacks, all null.

    Columns that may not be null have to be there; writing the table says which is missing.
    """
    lacking = [field for field in schema if field.nullable and field.name not in frame.columns]
    types = {pa.int8(): "Int8"}
    nulls = {
        field.name: pd.array([None] * len(frame), dtype=types.get(field.type, "object"))
        for field in lacking
    }
    return frame.assign(**nulls)


def radiograph(rng: np.random.Generator, width: int, height: int, noise: float) -> Image.Image:
    """Return a smooth gray picture with some noise, which compresses as radiographs do.

    Args:
        rng: where the picture comes from.
        width: in pixels.
        height: in pixels.
        noise: standard deviation of the noise, in gray levels of 255.
    """
    coarse = Image.fromarray(rng.integers(0, 256, (12, 10), np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    noisy = smooth + rng.normal(0, noise, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))
