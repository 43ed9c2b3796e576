"""What a measurement leaves in its run: nothing of it is lost to another name."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from gpt2lab.actions.record import result_names
from gpt2lab.runs.home import is_name


def test_names_that_look_alike_as_results_stay_apart() -> None:
    names = ["a b", "a-b", "a_b", "日本", "中国", "größe", "1x", "a.1", "a", ""]
    assert list(result_names(names).values()) == [
        "a_b", "a_b_2", "a_b_3", "_", "__2", "gr_e", "_1x", "a_1", "a", "__3",
    ]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(st.sampled_from("a1_.- é/\\\0\n"), max_size=300), unique=True, max_size=8))
def test_every_name_becomes_one_of_a_result_and_of_a_file(names: list[str]) -> None:
    made = result_names(names)
    assert list(made) == names
    assert len(set(made.values())) == len(names)
    for known in made.values():
        assert re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", known, re.ASCII)
        assert is_name(known)
    assert result_names(names[:3]) == dict(list(made.items())[:3]), "more names change nothing for these"
