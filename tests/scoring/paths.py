"""Paths of the committed inputs of the scoring scripts and of their committed records."""

from pathlib import Path
from typing import Final

INPUTS: Final = Path(__file__).parent / "inputs"
RECORDS: Final = Path(__file__).parent / "records"
