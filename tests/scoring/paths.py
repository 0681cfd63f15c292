"""Where the inputs of the scoring scripts and the records of them are committed."""

from pathlib import Path
from typing import Final

INPUTS: Final = Path(__file__).parent / "inputs"
RECORDS: Final = Path(__file__).parent / "records"
