"""The prompts and answers of the language model, as tokens.

There are three forms, after LLaVA (Liu et al., NeurIPS 2023):

- `plain`, of the first stage: the image, then the report and a line break.
- `v1`, of the second stage and of generation: Vicuna's conversation, in which the user shows the
  image and asks for the findings, and the assistant answers with the report. The question names the
  study's indication if there is one.
- `v1_stored`: the same with the question of the annotations, regardless of the indication. The
  benchmark's authors train with it (and test with `v1`).

The texts before and after the image are tokenised separately, and each gets the leading space that
the tokenizer gives to a text, as in LLaVA.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from workflow_scripts.common.errors import InputError

FORMS: Final = ("plain", "v1", "v1_stored")

QUESTION: Final = "Provide a description of the findings in the radiology image."
STORED_QUESTION: Final = "Describe the findings of the chest x-ray."

INDICATION_SHARE: Final = 0.25
"""The largest share of the tokens for indication and answer that an indication may take."""

# Word for word the opening that Vicuna was trained with.
OPENING: Final = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: "
)


@dataclass(frozen=True)
class Prompts:
    """The prompts of some images, as tokens of one form.

    Attributes:
        shown: ids up to and including the image's placeholders, the same for all prompts (stored
            once, because 70,000 copies would take a GB).
        questions: ids of each question.
        n_with_indication: number of questions that name an indication.
        n_indications_cut: number of indications that were shortened or left out for lack of room.
    """

    shown: np.ndarray
    questions: list[np.ndarray]
    n_with_indication: int
    n_indications_cut: int

    def of(self, rows: Iterable[int]) -> list[np.ndarray]:
        """Return the complete ids of some prompts."""
        return [np.concatenate([self.shown, self.questions[row]]) for row in rows]


@dataclass(frozen=True)
class Written:
    """Reports as tokens of one form, with their prompts.

    Attributes:
        prompts: the prompt of each report.
        answers: ids of each report; none is empty.
        n_cut: number of reports that were shortened for lack of room.
    """

    prompts: Prompts
    answers: list[np.ndarray]
    n_cut: int


@dataclass(frozen=True)
class _Question:
    """The text between image and answer, and whether it names an indication, whole or cut."""

    text: str
    ids: list[int]
    named: bool = False
    cut: bool = False


def question(indication: str | None) -> str:
    """Return LLaVA-Rad's question word for word; with an indication it has no full stop."""
    if indication is None:
        return QUESTION
    return f"{QUESTION.removesuffix('.')} given the following indication: {indication}"


class ReportTokenizer:
    """Converts reports to tokens and back.

    Args:
        tokenizer: a transformers tokenizer that has the image's placeholder as a token.
        image_token: id of the placeholder.
        image_tokens: number of placeholders of an image.
        max_length: tokens of prompt, image and answer together.

    Raises:
        InputError: the tokenizer has no token for the beginning or the end, or the prompt leaves no
            room.
    """

    def __init__(self, tokenizer: Any, image_token: int, image_tokens: int, max_length: int):
        if tokenizer.bos_token_id is None or tokenizer.eos_token_id is None:
            raise InputError(
                "the tokenizer has no token for the beginning or the end", "tokenizer.json"
            )
        self.tokenizer, self.max_length = tokenizer, max_length
        self.image_token, self.eos = image_token, int(tokenizer.eos_token_id)
        image = [image_token] * image_tokens
        begin = [int(tokenizer.bos_token_id)]
        shown = begin + self._ids(OPENING) + image
        self._shown = {"plain": begin + image, "v1": shown, "v1_stored": shown}
        self._plain = {
            "plain": _Question("", []),
            "v1": self._question(QUESTION),
            "v1_stored": self._question(STORED_QUESTION),
        }
        for form in FORMS:
            if self._room(form) < 1:
                raise InputError(
                    f"a prompt of the form {form} takes {max_length - self._room(form)} of "
                    f"{max_length} tokens and leaves none for the report",
                    "downstream.report_generation.max_length",
                    "raise max_length",
                )

    def prompts(self, indications: Sequence[str | None], form: str) -> Prompts:
        """Tokenise the prompts of images with these indications.

        An indication that takes more than `INDICATION_SHARE` loses its last words.

        Raises:
            InputError: an indication holds the image's placeholder.
        """
        return self._prompts([self._asked(indication, form) for indication in indications], form)

    def write(
        self, reports: Sequence[str], indications: Sequence[str | None], form: str
    ) -> Written:
        """Tokenise reports as answers, and cut them at `max_length`.

        Args:
            reports: the report of each image.
            indications: the indication of each image, see `prompts`.
            form: one of `FORMS`.

        Raises:
            InputError: the tokenizer merges the question's end with the report's beginning, or a
                text holds the image's placeholder.
        """
        questions = [self._asked(indication, form) for indication in indications]
        prompts = self._prompts(questions, form)
        answers, n_cut = [], 0
        for report, asked in zip(reports, questions, strict=True):
            answer = self._answer(report, asked, form)
            room = self.max_length - len(self._shown[form]) - len(asked.ids)
            answers.append(np.array(answer[:room]))
            n_cut += len(answer) > room
        return Written(prompts, answers, n_cut)

    def read(self, ids: Sequence[int]) -> str:
        """Return the text of generated ids, up to the end of sequence."""
        kept = list(ids)
        if self.eos in kept:
            kept = kept[: kept.index(self.eos)]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()

    def _room(self, form: str) -> int:
        """Return the number of tokens that are left for an indication and the answer."""
        return self.max_length - len(self._shown[form]) - len(self._plain[form].ids)

    def _prompts(self, questions: Sequence[_Question], form: str) -> Prompts:
        return Prompts(
            np.array(self._shown[form]),
            [np.array(asked.ids, np.int64) for asked in questions],
            sum(asked.named for asked in questions),
            sum(asked.cut for asked in questions),
        )

    def _asked(self, indication: str | None, form: str) -> _Question:
        plain = self._plain[form]
        if form != "v1" or indication is None:
            return plain
        limit = len(plain.ids) + int(INDICATION_SHARE * self._room(form))
        words = indication.split()

        def first(number: int) -> _Question:
            asked = question(" ".join(words[:number]))
            return self._question(asked, named=True, cut=number < len(words))

        whole = first(len(words))
        if len(whole.ids) <= limit:
            return whole
        numbers = range(1, len(words))
        kept = bisect_right(numbers, limit, key=lambda number: len(first(number).ids))
        return first(kept) if kept else replace(plain, cut=True)

    def _question(self, asked: str, *, named: bool = False, cut: bool = False) -> _Question:
        text = f"\n{asked} ASSISTANT:"
        return _Question(text, self._ids(text), named, cut)

    def _answer(self, report: str, asked: _Question, form: str) -> list[int]:
        if form == "plain":
            return self._ids(f"{report}\n")
        whole = self._ids(f"{asked.text} {report}")
        if whole[: len(asked.ids)] != asked.ids:
            raise InputError(
                "the tokenizer joins the end of the question with the beginning of a report",
                "tokenizer.json",
                "use the tokenizer of a Llama or Vicuna",
            )
        return [*whole[len(asked.ids) :], self.eos]

    def _ids(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, add_special_tokens=False).input_ids)
        if self.image_token in ids:
            raise InputError(
                "a report or an indication contains the placeholder of an image",
                "the manifest",
                "take it out of the annotations",
            )
        return ids
