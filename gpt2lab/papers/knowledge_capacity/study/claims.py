"""The claims of the study, when each can be judged, and the paper's twelve results that they stand for."""

from dataclasses import dataclass

from gpt2lab.studies.claim import Above, AtLeast, AtMost, Between, Claim

_TRAINED = ("laptop", "gpu", "paper")
_LARGER = ("gpu", "paper")
_R = "bits for each parameter"
_SHARE = "share of the bits"


def _learnt(*curves: str, share: float = 0.05) -> str:
    """That models know some of the values, at a learning rate inside the grid."""
    known = [f"peak.{curve}.value_share > {share} and peak.{curve}.at_edge < 1" for curve in curves]
    return " and ".join(known)


def _peak(curve: str) -> str:
    return f"peak.{curve}.bits_per_parameter"


_FLAT = "peak.many.rise < 0.02"
"""The bits do not rise any more: by less than 2 % in the last tenth of the updates."""
_OFFERED = "peak.many.bits_per_parameter_max"
"""R_max at the peak: a model that was offered fewer bits than a claim speaks of says nothing of it."""
_BESIDE = "junk.none.value_share > 0.5"
"""Without junk the facts are learnt."""
_ENOUGH = "junk.repeated.value_share > 0.5"
"""Beside junk that is always the same they are learnt too: there were updates enough to leave the plateau at chance."""

_OTHERS = ("many_llama_tied", "many_mistral_tied", "many_gpt2_quarter", "many_gpt2_no_mlp")
"""The other architectures of result 5."""

CLAIMS = [
    Claim(
        "After 1000 exposures of each fact a model stores about two bits a parameter",
        name="A",
        fixed="2026-12-01",
        measure=_peak("many"),
        quantity="R at the number of people that was best on the tuning seed",
        holds_if=AtLeast(2.0),
        holds_in_part_if=AtLeast(1.0),
        needs=f"{_OFFERED} > 2.2 and {_FLAT} and {_learnt('many')}",
        paper="result 1: peak at least 2",
        unit=_R,
        scales=_TRAINED,
    ),
    Claim(
        "A model with room to spare stores nearly all there is",
        name="B",
        fixed="2026-12-01",
        measure="roomy.lowest_share",
        quantity="lowest R / R_max of the models with R_max of at most 1.8",
        holds_if=AtLeast(0.95),
        holds_in_part_if=AtLeast(0.8),
        needs=f"roomy.models > 0 and roomy.rise < 0.02 and {_learnt('many')}",
        paper="result 1b: every model with R_max of at most 1.8 is near perfect",
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "No model stores more than 2.3 bits a parameter",
        name="C",
        fixed="2026-12-01",
        measure="highest",
        quantity="highest R of all models",
        holds_if=AtMost(2.3),
        needs=f"{_OFFERED} > 2.3 and {_FLAT} and {_learnt('many')}",
        paper="result 1c: at most 2.3",
        unit=_R,
        scales=_TRAINED,
    ),
    Claim(
        "Facts that are worded once or forty times are stored nearly as well as those worded anew each time",
        name="D",
        fixed="2026-12-01",
        measure=f"min({_peak('many_bios_simple')}, {_peak('many_bior')}) / {_peak('many')}",
        quantity="lower peak of bios-simple and bior over that of bios",
        holds_if=AtLeast(0.8),
        needs=f"{_FLAT} and {_learnt('many', 'many_bios_simple', 'many_bior')}",
        paper="result 2: about 2, slightly lower",
        no_effect=1.0,
        scales=_LARGER,
    ),
    Claim(
        "Random strings are stored as well as biographies",
        name="E",
        fixed="2026-12-01",
        measure=f"{_peak('many_biod')} / {_peak('many')}",
        quantity="peak of biod over that of bios",
        holds_if=AtLeast(0.9),
        needs=f"{_FLAT} and {_learnt('many', 'many_biod')}",
        paper="result 3: peak at least 2 for every shape of random facts",
        no_effect=1.0,
        scales=_LARGER,
    ),
    Claim(
        "After 100 exposures a model stores about half as much as after 1000",
        name="F",
        fixed="2026-12-01",
        measure=f"{_peak('many')} / {_peak('few')}",
        quantity="peak of 1000 exposures over that of 100",
        holds_if=Between(1.3, 3.0),
        holds_in_part_if=Above(1.3),
        needs=f"{_FLAT} and {_learnt('many', 'few')}",
        paper="result 4: peak at least 1, half of result 1's",
        paper_effect=2.0,
        no_effect=1.0,
        scales=_TRAINED,
    ),
    Claim(
        "After 1000 exposures other architectures store as much as GPT-2, even without feed-forward layers",
        name="G",
        fixed="2026-12-01",
        measure=f"min({', '.join(_peak(curve) for curve in _OTHERS)}) / {_peak('many')}",
        quantity="lowest peak of LLaMA and Mistral (tied), a quarter of the feed-forward and none, over GPT-2's",
        holds_if=AtLeast(0.9),
        needs=f"{_FLAT} and {_learnt('many', *_OTHERS)}",
        paper="result 5: the same",
        no_effect=1.0,
        scales=_LARGER,
    ),
    Claim(
        "After 100 exposures LLaMA and Mistral store less than GPT-2",
        name="H",
        fixed="2026-12-01",
        measure=f"{_peak('few')} / max({_peak('few_llama_tied')}, {_peak('few_mistral_tied')})",
        quantity="peak of GPT-2 over the higher one of LLaMA and Mistral, both tied",
        holds_if=AtLeast(1.1),
        holds_in_part_if=Above(1.0),
        needs=_learnt("few", "few_llama_tied", "few_mistral_tied"),
        paper="result 6: 1.3 times",
        paper_effect=1.3,
        no_effect=1.0,
        scales=_LARGER,
    ),
    Claim(
        "After 100 exposures a model without feed-forward layers stores far less",
        name="I",
        fixed="2026-12-01",
        measure=f"{_peak('few')} / {_peak('few_gpt2_no_mlp')}",
        quantity="peak of GPT-2 over that of GPT-2 without feed-forward",
        holds_if=AtLeast(1.3),
        holds_in_part_if=Above(1.0),
        needs=_learnt("few", "few_gpt2_no_mlp"),
        paper="result 6: more than 1.5 times",
        paper_effect=1.5,
        no_effect=1.0,
        scales=_LARGER,
    ),
    Claim(
        "The gated feed-forward is the cause: with a plain one LLaMA stores as much as GPT-2",
        name="J",
        fixed="2026-12-01",
        measure=f"{_peak('few_llama_plain')} / {_peak('few_llama_tied')}",
        quantity="peak of a tied LLaMA with a plain feed-forward over that with its own",
        holds_if=AtLeast(1.1),
        holds_in_part_if=Above(1.0),
        needs=_learnt("few_llama_plain", "few_llama_tied"),
        paper="result 7: the plain feed-forward restores the loss of 1.3 times",
        paper_effect=1.3,
        no_effect=1.0,
        scales=_LARGER,
    ),
    Claim(
        "Eight-bit weights keep the capacity",
        name="K",
        fixed="2026-12-01",
        measure="rounded.int8",
        quantity="R after rounding to 8 bits over R before",
        holds_if=AtLeast(0.97),
        needs="rounded.value_share > 0.5",
        paper="result 8: no loss",
        paper_effect=1.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "Four-bit weights lose at least 30 % of it, to the nearest level and by GPTQ",
        name="L",
        fixed="2026-12-01",
        measure="max(rounded.int4, rounded.int4_gptq)",
        quantity="the larger R after rounding to 4 bits, to the nearest level or by GPTQ, over R before",
        holds_if=AtMost(0.7),
        needs="rounded.value_share > 0.5",
        paper="result 8: more than 2 times lower, to 0.7 bit a parameter",
        paper_effect=0.35,
        no_effect=1.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "A mixture of 32 experts stores a little less for each of its parameters, of which a tenth is active",
        name="M",
        fixed="2026-12-01",
        measure=f"{_peak('many')} / {_peak('many_gpt2_experts')}",
        quantity="peak of GPT-2 over that with 32 experts, by all parameters",
        holds_if=Between(1.0, 1.6),
        needs=f"{_FLAT} and {_learnt('many', 'many_gpt2_experts')}",
        paper="result 9: 1.3 times after 1000 exposures",
        paper_effect=1.3,
        scales=_LARGER,
    ),
    Claim(
        "Beside seven times as much random junk a model stores less",
        name="N",
        fixed="2026-12-01",
        measure="beside_junk.random",
        quantity="R beside junk that never comes again, over R without junk",
        holds_if=AtMost(0.77),
        holds_in_part_if=AtMost(0.95),
        needs=f"{_BESIDE} and {_ENOUGH} and junk.none.at_edge + junk.random.at_edge == 0",
        paper="result 10: up to 20 times less after 100 exposures, 3 times after 300",
        paper_effect=0.33,
        no_effect=1.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "Junk that is always the same does no harm",
        name="O",
        fixed="2026-12-01",
        measure="beside_junk.repeated",
        quantity="R beside junk of a few people, over R without junk",
        holds_if=AtLeast(0.95),
        needs=f"{_BESIDE} and junk.none.at_edge + junk.repeated.at_edge == 0",
        paper="result 11: no loss",
        paper_effect=1.0,
        unit=_SHARE,
        scales=_TRAINED,
    ),
    Claim(
        "One token before the useful text restores at least half of what junk takes",
        name="P",
        fixed="2026-12-01",
        measure="(beside_junk.marked - beside_junk.random) / (1 - beside_junk.random)",
        quantity="share of the loss beside random junk that the token gives back",
        holds_if=AtLeast(0.5),
        needs=f"{_BESIDE} and {_ENOUGH} and beside_junk.random < 0.77 "
        "and junk.none.at_edge + junk.random.at_edge + junk.marked.at_edge == 0",
        paper="result 12: 2 times less after 100 exposures, no loss after 300",
        paper_effect=1.0,
        no_effect=0.0,
        unit="share of the loss",
        scales=_TRAINED,
    ),
]


@dataclass(frozen=True)
class Result:
    """One of the twelve headline results of the paper."""

    number: int
    words: str
    claims: tuple[str, ...]
    """Letters of the claims that test it."""


RESULTS = (
    Result(
        1, "1000 exposures: peak at least 2, near perfect below 1.8 offered, never above 2.3", ("A", "B", "C")
    ),
    Result(2, "one wording, or forty, peaks about as high", ("D",)),
    Result(3, "random facts of every shape peak at 2 or more", ("E",)),
    Result(4, "100 exposures: peak at least 1, about half of that of 1000", ("F",)),
    Result(5, "1000 exposures: LLaMA, Mistral, less or no feed-forward reach the same", ("G",)),
    Result(6, "100 exposures: LLaMA and Mistral 1.3 times lower, no feed-forward 1.5 times", ("H", "I")),
    Result(7, "the gated feed-forward is the cause", ("J",)),
    Result(8, "int8 loses nothing, int4 more than half", ("K", "L")),
    Result(9, "32 experts: 1.3 times lower by all parameters", ("M",)),
    Result(10, "random junk: up to 20 times lower", ("N",)),
    Result(11, "repeated junk: no loss", ("O",)),
    Result(12, "a token before useful text: little or no loss", ("P",)),
)
