"""The one kind of error a user can cause, and its hint."""

from gpt2lab.base.errors import LabError, nearest, unknown


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    error = unknown("paper", "tinystory", ["tinystories", "sophia"])
    assert isinstance(error, LabError)
    assert str(error) == "tinystory: no such paper; did you mean tinystories?"


def test_a_name_like_no_other_is_answered_with_all_that_exist() -> None:
    assert str(unknown("paper", "x", ["b", "a"])) == "x: no such paper; known: a, b"


def test_nothing_is_near_to_a_foreign_word() -> None:
    assert nearest("zzz", ["greedy", "beam"]) is None
    assert nearest("greddy", ["greedy", "beam"]) == "greedy"
