import random

import pytest

from gpt2lab.decode.transcript import Transcript
from gpt2lab.text.tokenizer import Tokenizer, byte_level, train_bpe

TEXT = "Once upon a time there was a naïve café owner. He said: “¿qué?” and 🙂 laughed — 日本語 too.\n\nEnd of it."


@pytest.fixture(scope="module", params=["bytes", "bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return byte_level() if request.param == "bytes" else train_bpe([TEXT] * 3, 300)


def run(tokenizer: Tokenizer, text: str, **settings: object) -> tuple[str, list[str], int, Transcript]:
    """Say `text` token by token: the transcript's text, the pieces let out, and how many tokens it took."""
    pieces: list[str] = []
    transcript = Transcript(tokenizer, tokenizer.encode("Prompt. "), emit=pieces.append, **settings)
    tokens, used = tokenizer.encode(text), 0
    for token in tokens:
        used += 1
        if transcript.push(token):
            break
    return transcript.close(), pieces, used, transcript


def test_pieces_join_to_the_text_and_no_character_is_broken(tokenizer: Tokenizer) -> None:
    text, pieces, _, _ = run(tokenizer, TEXT)
    assert text == "".join(pieces) == TEXT
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("stop", [". He", "café", "🙂", "a", "\n\n", "—", "Once"])
def test_text_is_cut_before_or_after_a_stop_string_inside_tokens(tokenizer: Tokenizer, stop: str) -> None:
    at = TEXT.index(stop)
    for keep, end in ((False, at), (True, at + len(stop))):
        text, pieces, used, transcript = run(tokenizer, TEXT, stop=[stop], keep_stop=keep)
        assert transcript.stopped
        assert text == "".join(pieces) == TEXT[:end]
        assert stop in tokenizer.decode(tokenizer.encode(TEXT)[:used])
        assert stop not in tokenizer.decode(tokenizer.encode(TEXT)[: used - 1])


def test_the_first_stop_string_to_begin_wins(tokenizer: Tokenizer) -> None:
    text, _, _, _ = run(tokenizer, TEXT, stop=["time there was", "upon", "there"])
    assert text == "Once "


def test_what_may_begin_a_stop_string_is_held_back_until_it_is_certain(tokenizer: Tokenizer) -> None:
    text, pieces, _, _ = run(tokenizer, "a STO a STOP b", stop=["STOP"])
    assert text == "a STO a "
    assert "".join(pieces) == text
    text, pieces, _, transcript = run(tokenizer, "a STO", stop=["STOP"])
    assert text == "".join(pieces) == "a STO"
    assert not transcript.stopped


def test_random_stop_strings_cut_where_a_search_of_the_whole_text_would() -> None:
    tokenizer, rng = byte_level(), random.Random(0)
    for _ in range(300):
        text = "".join(rng.choice("ab") for _ in range(20))
        stops = ["".join(rng.choice("ab") for _ in range(rng.randint(2, 6))) for _ in range(2)]
        got, pieces, _, _ = run(tokenizer, text, stop=stops)
        ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
        # Characters come one by one, so the string that is complete first ends the text.
        first = min((end for end, _ in ends), default=None)
        wanted = text if first is None else text[: min(at for end, at in ends if end == first)]
        assert got == "".join(pieces) == wanted


def test_an_unfinished_character_at_the_end_is_shown_as_a_replacement() -> None:
    tokenizer = byte_level()
    pieces: list[str] = []
    transcript = Transcript(tokenizer, [65], emit=pieces.append)
    for token in "é".encode()[:1]:
        transcript.push(token)
    assert pieces == []
    assert transcript.close() == "\ufffd"
