"""What a measure is that needs only text: it works on a language model and on any text back end."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from gpt2lab.measures.measurement import Measurement

if TYPE_CHECKING:
    from gpt2lab.decode.backend import TextBackend
    from gpt2lab.text.language_model import LanguageModel


class TextMeasure(ABC):
    """A measure that derives from this may be given a `TextBackend`: a server, recorded answers."""

    @abstractmethod
    def __call__(self, lm: "LanguageModel | TextBackend") -> Measurement:
        """Measure."""
        ...
