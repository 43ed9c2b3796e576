"""The measure of knowledge capacity: the bits of generated facts that a model holds, in all and for each parameter."""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gpt2lab.base.interval import Interval
from gpt2lab.measures.measurement import Measurement, Table
from gpt2lab.measures.statistics import t_interval
from gpt2lab.papers.knowledge_capacity.bits import (
    LN2,
    NAMES,
    STRINGS,
    Bits,
    available,
    learned,
    proven_bound,
    upper_bound,
)
from gpt2lab.papers.knowledge_capacity.evaluation import FieldLosses, field_losses, used_ids
from gpt2lab.papers.knowledge_capacity.facts import fact_source
from gpt2lab.papers.knowledge_capacity.parameters import Parameters, count_parameters
from gpt2lab.plots.bars import stacked_bars
from gpt2lab.text.generators.biographies import EMPLOYER
from gpt2lab.text.generators.fact_text import FactSource, Information

if TYPE_CHECKING:
    from gpt2lab.text.language_model import LanguageModel

MEMORISED = ("birth date", "birth city", "university", "major", EMPLOYER)
"""Attributes of biographies over which the paper averages exact answers."""
_LEAST_PEOPLE = 5
"""People that an interval needs."""


@dataclass(frozen=True, kw_only=True)
class KnowledgeBits:
    """Bits of generated facts that a model holds, by field and by parameter, beside all there are."""

    facts: str = "bios:1000"
    """What the model was trained on: bios, bios-simple, bior, biod or biod-symbols with :PEOPLE:SEED, as given to --data."""
    draws: int = 2
    """Wordings in which every person is asked for; losses are averaged over them."""
    limit: int | None = None
    """Ask for at most this many people, and reckon the others like them; none is all."""
    batch_size: int = 16
    """Texts in one forward pass; changes speed and memory, not the numbers."""
    attributes: int | None = None
    """biod: attributes of a person; this and the following: none is the source's own."""
    strings: int | None = None
    """biod: strings of a value."""
    diversity: int | None = None
    """biod: strings that an attribute draws from."""
    length: int | None = None
    """biod: symbols of a string."""
    alphabet: int | None = None
    """biod: symbols there are."""
    name_symbols: int | None = None
    """biod-symbols: words that each of the three places of a name can have."""

    def source(self) -> FactSource:
        """Return the people that are asked for. LabError for a source that there is not."""
        return fact_source(
            self.facts,
            attributes=self.attributes,
            strings=self.strings,
            diversity=self.diversity,
            length=self.length,
            alphabet=self.alphabet,
            name_symbols=self.name_symbols,
        )

    def __call__(self, lm: "LanguageModel") -> Measurement:
        """Measure. LabError as `field_losses`, and for a source that there is not."""
        source = self.source()
        losses = field_losses(
            lm, source, draws=self.draws, limit=self.limit, batch_size=self.batch_size, label="knowledge-bits"
        )
        assert lm.tokenizer is not None  # else the losses were refused
        parameters = count_parameters(lm.model, used_ids(lm.tokenizer, source))
        return measurement(
            source.information, losses, parameters, about={"facts": self.facts, "draws": self.draws}
        )


def measurement(
    known: Information, losses: FieldLosses, parameters: Parameters, about: dict[str, Any]
) -> Measurement:
    """Put losses, bits and parameters of one model together; `about` is what else a reader must know."""
    means = losses.means(list(known.values))
    bits, most = learned(known, means), available(known)
    p = parameters.counted
    numbers = {
        "bits_per_parameter": bits.total / p,
        "bits_per_parameter_max": most.total / p,
        "bits": bits.total,
        "bits_max": most.total,
        **_sampled(known, losses, p),
        **{f"{name}_bits": value for name, value in _parts(bits).items()},
        "bits_proven": proven_bound(known, means),
        "name_loss": means.name,
        "value_loss": sum(means.values.values()) / (len(means.values) if known.sets else 1),
        **({"first_string_loss": means.first_string} if means.first_string is not None else {}),
        "other_loss": losses.other,
        "parameters": float(p),
        "bits_per_parameter_of_all": bits.total / parameters.total,
        **_accuracy(known, losses),
    }
    of_all = "a person" if not known.sets else "an attribute"
    units = {
        "bits_per_parameter": "R, bits for each parameter",
        "bits_per_parameter_max": "R_max",
        "bits": "bits",
        "bits_max": "bits",
        "bits_proven": "bits, theorem 3.2 without its o(·)",
        "name_loss": "p1, nats a name",
        "value_loss": f"p2, nats {of_all}",
        "first_string_loss": "p3, nats a string",
        "other_loss": "nats a token outside the facts",
        "parameters": "rows of unused ids left out",
        "bits_per_parameter_of_all": "all parameters counted",
        "exact": "values of which every token is the likeliest after the true text before it",
        "people_by_likeliest_values": "people, mean over five attributes; each value after the true text before it",
    }
    return Measurement(
        name="knowledge-bits",
        numbers=numbers,
        units={name: unit for name, unit in units.items() if name in numbers},
        tables={"components": _components(known, losses, bits, most, p), "parameters": [vars(parameters)]},
        figures={
            "components": partial(
                stacked_bars,
                {"learned": _per_parameter(bits, p), "in the facts": _per_parameter(most, p)},
                label="bits for each parameter",
                reference={"1": 1.0, "2": 2.0},
            )
        },
        about={
            **about,
            "people": known.people,
            "people_asked": len(losses.name),
            "bits_in_facts": upper_bound(known),
        },
    )


def _parts(bits: Bits) -> dict[str, float]:
    strings = {STRINGS: bits.strings} if bits.strings else {}
    return {NAMES: bits.names, "values": sum(bits.values.values()), **strings}


def _per_parameter(bits: Bits, parameters: int) -> dict[str, float]:
    return {name: value / parameters for name, value in bits.components.items()}


def _components(known: Information, losses: FieldLosses, bits: Bits, most: Bits, parameters: int) -> Table:
    """Rows of the components: bits there are, bits learned, and how often a value is exactly the likeliest."""
    return [
        {
            "component": name,
            "bits": value,
            "bits in the facts": (there := most.components.get(name, 0.0)),
            "bits for each parameter": value / parameters,
            **({"share": value / there} if there else {}),
            **({"exact": float(losses.exact[name].mean())} if name in losses.exact else {}),
        }
        for name, value in bits.components.items()
    ]


def _accuracy(known: Information, losses: FieldLosses) -> dict[str, float]:
    attributes = [name for name in MEMORISED if name in known.values] or list(known.values)
    exact = sum(float(losses.exact[name].mean()) for name in attributes) / len(attributes)
    return {"exact": exact, "people_by_likeliest_values": known.people * exact}


def bits_of_people(known: Information, losses: FieldLosses) -> Interval:
    """Return the learned bits with the interval of having asked some people only, by t, for a population of N.

    The bits are linear in every person's losses, so that they are the mean of what each person's losses alone would give.
    LabError for fewer than two people.
    """
    nats = losses.name + sum(losses.values[name] for name in known.values)
    each = -known.people * nats / LN2
    if losses.first_string is not None:
        each = each - known.sets * known.set_size * losses.first_string / LN2
    found = t_interval(each)
    left = math.sqrt(max(0.0, 1 - len(each) / known.people))  # nothing is uncertain once everybody was asked
    total = learned(known, losses.means(list(known.values))).total
    return Interval(
        total,
        total - left * (found.mean - found.low),
        total + left * (found.high - found.mean),
        found.n,
        found.sd,
        found.level,
    )


def _sampled(known: Information, losses: FieldLosses, parameters: int) -> dict[str, float]:
    """The 95 % interval of R where not everybody was asked."""
    if not _LEAST_PEOPLE <= len(losses.name) < known.people:
        return {}
    interval = bits_of_people(known, losses)
    return {
        "bits_per_parameter_low": interval.low / parameters,
        "bits_per_parameter_high": interval.high / parameters,
    }
