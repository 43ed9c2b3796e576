"""Many runs: nothing that the store is asked grows with what is not asked for."""

import sqlite3

import pytest

from benchmarks.store import make
from gpt2lab.runs import database
from gpt2lab.runs.store import Store


@pytest.fixture(scope="module")
def homes(tmp_path_factory):
    """Return the folders of a store of 400 runs and of one of ten times as many."""
    places = {amount: tmp_path_factory.mktemp(f"runs{amount}") for amount in (400, 4000)}
    for amount, home in places.items():
        make(home, amount)
    return places


@pytest.fixture
def steps(monkeypatch):
    """Return a function that counts the instructions of SQLite's machine that a call needs."""
    counted = [0]

    def connect(*words, **more):
        connection = sqlite3.connect(*words, **more)
        connection.set_progress_handler(lambda: counted.__setitem__(0, counted[0] + 1) or 0, 1)
        return connection

    class Module:
        def __getattr__(self, name):
            return connect if name == "connect" else getattr(sqlite3, name)

    monkeypatch.setattr(database, "sqlite3", Module())

    def count(call):
        counted[0] = 0
        assert call()
        return counted[0]

    return count


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda store: store.find("tide-377"), id="by id"),
        pytest.param(lambda store: store.find("tide"), id="by name"),
        pytest.param(lambda store: store.find("tide-37"), id="by the beginning of its id"),
        pytest.param(lambda store: store.pieces("study-2"), id="pieces"),
        pytest.param(lambda store: store.rows(limit=20, without=("generate",)), id="the last twenty"),
        pytest.param(lambda store: store.rows(limit=20, pieces=True), id="the last twenty with pieces"),
        pytest.param(lambda store: [store.rows(origins=["tide-377"])], id="by origin"),
        pytest.param(lambda store: [store.built_on("tide-377")], id="built on"),
    ],
)
def test_a_question_costs_the_same_in_a_store_of_ten_times_as_many_runs(homes, steps, ask):
    small, large = (steps(lambda home=home: ask(Store(home))) for home in homes.values())
    assert large < 1.5 * small + 50


def test_only_as_many_rows_are_read_as_are_asked_for(homes, monkeypatch):
    read = []
    monkeypatch.setattr("gpt2lab.runs.store.row_of", lambda *row: read.append(row) or database_row(*row))
    assert len(Store(homes[4000]).rows(limit=20)) == 20
    assert len(read) == 20


def test_all_runs_are_listed_in_a_time_that_a_person_does_not_notice(homes):
    import time

    began = time.process_time()
    rows = Store(homes[4000]).rows(pieces=True)
    assert len(rows) == 4000
    assert time.process_time() - began < 1.0


def database_row(values, given):
    from gpt2lab.runs.row import row_of

    return row_of(values, given)
