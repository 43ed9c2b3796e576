"""Training on chats: the next token of what the assistant says, and of nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import user_path
from gpt2lab.text.chat_batches import ChatBatches
from gpt2lab.text.chat_templates import read_template
from gpt2lab.text.chats import ChatTemplate, ChatTokens, read_chats, special_texts
from gpt2lab.text.language_model import LanguageModel
from gpt2lab.text.splits import TRAIN, by_hash
from gpt2lab.text.tokenizer import Tokenizer
from gpt2lab.training.objectives import NextToken
from gpt2lab.training.rows import RowData


@dataclass(kw_only=True)
class Answers(NextToken):
    """The next token of the assistant's messages alone, in rows of chats.

    A chat is written by the model's chat template; its other tokens are read and carry no loss.
    """

    messages: str = "messages"
    """Field with the list of messages, each an object with role and content."""
    template: str = "default"
    """Name of a chat template of the model's folder, or a file FILE.jinja, which the trained model then keeps."""

    def read_rows(
        self,
        data: Sequence[str],
        lm: LanguageModel,
        *,
        batch_size: int,
        context: int,
        valid_fraction: float,
        seed: int,
    ) -> RowData:
        """Return chats as batches, equal ones on one side. LabError as for `read_chats`, `ChatTemplate`, `ChatBatches`."""
        tokenizer = lm.tokenizer
        if tokenizer is None:
            raise LabError("chats are text, and this model has no tokenizer")
        template = self._template(tokenizer)
        chats: list[tuple[str, ChatTokens]] = []
        for where, messages in read_chats(list(data), field=self.messages):
            try:
                made = template.tokens(tokenizer, messages)
            except LabError as error:
                raise LabError(f"{where}: {error}") from None
            chats.append((json.dumps(messages, sort_keys=True), made))
        parts = by_hash(chats, {"valid": valid_fraction}, key=lambda chat: chat[0], stratum=lambda chat: None)
        sides = [[tokens for _, tokens in parts[name]] for name in (TRAIN, "valid")]
        batches = ChatBatches(sides[0], tokenizer, batch_size=batch_size, context=context, seed=seed)
        held_out = ChatBatches(sides[1], tokenizer, batch_size=batch_size, context=context, shuffle=False)
        count = len(held_out.rows)
        return RowData(
            batches=batches,
            validation=[
                held_out.gather(range(place, min(place + batch_size, count)))
                for place in range(0, count, batch_size)
            ],
            examples=len(batches.rows),
            validation_examples=count,
            dropped=batches.dropped + held_out.dropped,
        )

    def _template(self, tokenizer: Tokenizer) -> ChatTemplate:
        if not self.template.endswith(".jinja"):
            try:
                return ChatTemplate.of(tokenizer, self.template)
            except LabError as error:
                raise LabError(
                    f"{error}; give a file of your own, objective_options.template=FILE.jinja"
                ) from None
        text = read_template(user_path(self.template))
        tokenizer.files["chat_template.jinja"] = (
            text  # saved with the model; ids and fingerprint do not depend on it
        )
        return ChatTemplate(text, special_texts(tokenizer))
