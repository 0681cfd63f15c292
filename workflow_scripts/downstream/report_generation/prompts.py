"""What the language model reads and is asked to write, in tokens.

Two forms of LLaVA (Liu et al., NeurIPS 2023), as LLaVA-Rad uses them:

- `plain`, of the first stage: the image, then the report and a line break.
- `v1`, of the second stage and of generation: Vicuna's conversation, in which the user shows the
  image and asks for the findings, and the assistant answers with the report.

LLaVA-Rad's question names the indication where a study has one. The cohort's manifest holds none,
so that every image gets the question without it.

Text before and after the image is tokenised apart, and each piece gets the leading space that the
tokenizer gives to a text, as LLaVA does.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from workflow_scripts.common.errors import InputError

FORMS: Final = ("plain", "v1")
QUESTION: Final = "Provide a description of the findings in the radiology image."

# What Vicuna was trained with, word for word: another opening is another prompt.
OPENING: Final = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: "
)
_ASKED: Final = f"\n{QUESTION} ASSISTANT:"


@dataclass(frozen=True)
class Written:
    """Reports as tokens of one form.

    Attributes:
        prompt: ids before the answer, the image's placeholders among them; the same for all.
        answers: ids of each report; none is empty.
        n_cut: how many were longer than there was room for, and lost their end.
    """

    prompt: np.ndarray
    answers: list[np.ndarray]
    n_cut: int


class ReportTokenizer:
    """Turns reports into tokens and back.

    Args:
        tokenizer: of transformers, with the image's placeholder among its tokens.
        image_token: id of the placeholder.
        image_tokens: how many an image takes.
        max_length: tokens of prompt, image and answer together.

    Raises:
        InputError: the tokenizer has no end of sequence, or the prompt leaves no room.
    """

    def __init__(self, tokenizer: Any, image_token: int, image_tokens: int, max_length: int):
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise InputError("the tokenizer has no beginning or end of sequence", "tokenizer.json")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.image_token, self.eos = image_token, int(tokenizer.eos_token_id)
        image = [image_token] * image_tokens
        opening, self._asked = self._ids(OPENING), self._ids(_ASKED)
        begin = [int(tokenizer.bos_token_id)]
        self._prompts = {"plain": begin + image, "v1": begin + opening + image + self._asked}
        for form, prompt in self._prompts.items():
            if len(prompt) >= max_length:
                raise InputError(
                    f"the prompt of the form {form} takes {len(prompt)} tokens of {max_length}",
                    "downstream.report_generation.max_length",
                    "raise it",
                )

    def prompt(self, form: str) -> np.ndarray:
        """Return the ids before the answer."""
        return np.array(self._prompts[form])

    def write(self, reports: Sequence[str], form: str) -> Written:
        """Tokenise reports as answers; what exceeds `max_length` is cut off at the end.

        Raises:
            InputError: a tokenizer that joins the question's end with the report's beginning.
        """
        room = self.max_length - len(self._prompts[form])
        answers = [self._answer(report, form) for report in reports]
        cut = [np.array(answer[:room]) for answer in answers]
        return Written(self.prompt(form), cut, sum(len(answer) > room for answer in answers))

    def read(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, up to the end of sequence."""
        kept = list(ids)
        if self.eos in kept:
            kept = kept[: kept.index(self.eos)]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()

    def _answer(self, report: str, form: str) -> list[int]:
        if form == "plain":
            return self._ids(f"{report}\n")
        whole = self._ids(f"{_ASKED} {report}")
        if whole[: len(self._asked)] != self._asked:
            raise InputError(
                "the tokenizer joins the end of the question with the beginning of a report",
                "tokenizer.json",
                "use the tokenizer of a Llama or Vicuna",
            )
        return [*whole[len(self._asked) :], self.eos]

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)
