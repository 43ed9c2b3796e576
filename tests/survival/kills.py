"""Training is killed again and again; every run must end as one that nobody disturbed.

    python -m tests.survival.kills --rounds 300 --seed 1

A round draws a variant of training, a moment and a way to die: a random time, the appearance of a file, the n-th call
into the file system, SIGTERM, or a disk that is full. Between two lives a mishap may follow: a flipped bit in the newest
checkpoint, the tokenizer or the shards, another host name, a clock that was put back, touched data. The run is resumed
until it has finished. Then its model, tokenizer, metrics, results, texts, tables and newest checkpoint are compared with
those of a run that was left alone, byte by byte; only times may differ. No half-written file may be left.
"""

import argparse
import hashlib
import json
import os
import platform
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", GPT2LAB_QUIET="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch

from gpt2lab.actions import train
from gpt2lab.actions.train import train_model
from gpt2lab.base.registry import part
from gpt2lab.runs import store as stores
from gpt2lab.runs.run_record import record
from gpt2lab.runs.store import Store
from gpt2lab.studies.resume import resume
from tests.survival.children import Life, after, flip, live, when
from tests.survival.variants import VARIANTS, settings, write_data

TIMES = ("seconds", "tokens_per_second", "mfu")
"""Numbers that may differ."""

AIMS = [
    ("store.sqlite", 1), ("cut-1/settings.json", 1), ("cut-1/data.txt", 1), ("cut-1/.tokenizer.*", 1),
    ("cut-1/tokenizer/tokenizer.json", 1), ("tokens/.*.tmp", 1), ("tokens/.*.tmp/*.tokens", 1),
    ("tokens/*/manifest.json", 1), ("cut-1/metrics.jsonl", 1), ("cut-1/checkpoints/.step-*/tensors.safetensors", 1),
    ("cut-1/checkpoints/.step-*/state.json", 1), ("cut-1/checkpoints/.step-*/SHA256SUMS", 1),
    ("cut-1/checkpoints/step-*", 1), ("cut-1/checkpoints/step-*", 2), ("cut-1/checkpoints/step-*", 3),
    ("cut-1/.model.*", 1), ("cut-1/model", 1), ("cut-1/texts/samples.txt", 1), ("cut-1/results.json", 1),
]  # fmt: skip
"""Files at whose appearance a process is killed, and how many of them there must be."""

LEFT = re.compile(r"\..+\.(tmp|lock|old-\d+)")
"""Names of what a process writes before it is whole."""

MISHAPS = ("none", "none", "checkpoint", "tokenizer", "shards", "host", "clock", "touch")


@dataclass
class Whole:
    """What a run that nobody disturbed left, and what it cost."""

    content: dict[str, object]
    life: Life


@dataclass
class Tally:
    """What happened."""

    lives: Counter[str] = field(default_factory=Counter)
    """Deaths by way to die; those that came too late as `too late`."""
    mishaps: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def content(home: Path) -> dict[str, object]:
    """Return everything of the run `cut`, finished, that must not depend on how often it was killed."""
    row = Store(home).find("cut")
    run, folder = record(row, home), row.folder(home)
    newest = max((folder / "checkpoints").glob("step-*"))
    state = json.loads((newest / "state.json").read_text())
    for name in ("seconds", "last_row"):
        del state["notes"][name]
    for group in state["groups"]:
        group.pop("differentiable", None)  # torch adds it, False, to what it loads
    found: dict[str, object] = {
        "status": row.status,
        "metrics": [{k: v for k, v in line.items() if k not in TIMES} for line in run.metrics],
        "results": {name: repr(value) for name, value in run.results.items() if name not in TIMES},
        "results.json": sorted(json.loads((folder / "results.json").read_text())),
        "checkpoint": newest.name,
        "state": state,
        "tensors": _digest(newest / "tensors.safetensors"),
        "captions": run.captions("texts") | run.captions("tables"),
        "left": [
            path.name for path in (*folder.rglob(".*"), *home.glob("tokens/.*")) if LEFT.fullmatch(path.name)
        ],
    }
    for place in ("model", "tokenizer", "texts", "tables"):
        found[place] = {path.name: _digest(path) for path in sorted((folder / place).glob("*"))}
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Rounds:
    """Draws rounds and judges them."""

    def __init__(self, data: Path, draw: random.Random) -> None:
        self.data, self.draw, self.tally = data, draw, Tally()
        self.whole: dict[str, Whole] = {}
        write_data(data)
        self.log = data / "log.txt"
        # In this process, so that what it imports is there in every life; the report is left out: it is drawn after the
        # run has ended, and costs more than the training.
        train.write_report = lambda *name, **home: Path()
        train_model(settings("plain", data), name="base", home=data / "home")
        for name in ("conda", "sophia-g"):
            part("optimizer", name)

    def undisturbed(self, variant: str) -> Whole:
        """Train a variant once without a kill."""
        if variant not in self.whole:
            home = self.data / f"whole-{variant}"
            life = live(partial(train_model, settings(variant, self.data), name="cut", home=home), self.log)
            assert life.status == 0, self.log.read_text()
            self.whole[variant] = Whole(content(home), life)
        return self.whole[variant]

    def play(self, number: int, variant: str) -> None:
        """Do one round: kill and resume until the run has finished, then compare."""
        whole = self.undisturbed(variant)
        home = self.data / f"round-{number}"
        log = self.data / f"round-{number}.txt"
        story: list[str] = []
        for _ in range(self.draw.choice((1, 1, 2, 3))):
            story.append(self._die(variant, home, log, whole))
            if story[-1] == "too late" or _has_finished(home):
                break  # nothing reads a finished run's files again, so that nothing would find what is done to them
            story.append(self._mishap(home))
        last = live(partial(_go_on, settings(variant, self.data), home, story[-1]), log)
        told = self._judge(home, last, whole)
        if told:
            lines = log.read_text().splitlines()[-3:] if log.exists() else []
            self.tally.wrong.append(
                f"round {number}, {variant}, {' → '.join(story)}: {told} | {' | '.join(lines)}"
            )
        else:
            shutil.rmtree(home)
            log.unlink(missing_ok=True)

    def _die(self, variant: str, home: Path, log: Path, whole: Whole) -> str:
        """Live until a drawn moment; return the way it ended."""
        work = partial(_go_on, settings(variant, self.data), home, "none")
        way = self.draw.choice(("time", "time", "file", "call", "call", "term", "full"))
        moment = after(self.draw.random() * whole.life.seconds)
        if way == "time":
            life = live(work, log, until=moment)
        elif way == "file":
            pattern, count = self.draw.choice(AIMS)
            life = live(work, log, until=when(home, pattern, count, self.draw.random() * 0.002))
        elif way == "call":
            life = live(work, log, call=self.draw.randrange(1, whole.life.calls + 1))
        elif way == "term":
            life = live(work, log, until=moment, how=signal.SIGTERM)
        else:
            life = live(work, log, largest_file=self.draw.randrange(2_000, 80_000))
        if life.status == 3:
            self.tally.wrong.append(f"{variant}, {way}: a defect, {log.read_text().splitlines()[-1]}")
        ended = "too late" if life.status == 0 else way
        self.tally.lives[ended] += 1
        return ended

    def _mishap(self, home: Path) -> str:
        """Do something to what the dead process has left; return what."""
        what = self.draw.choice(MISHAPS)
        checkpoints = sorted(home.glob("cut-1/checkpoints/step-*"))
        tokenizer, shards = sorted(home.glob("cut-1/tokenizer/*")), sorted(home.glob("tokens/*/*"))
        if what == "checkpoint" and checkpoints:
            flip(self.draw.choice(sorted(checkpoints[-1].iterdir())), self.draw)
        elif what == "tokenizer" and tokenizer:
            flip(self.draw.choice(tokenizer), self.draw)
        elif what == "shards" and shards:
            flip(self.draw.choice(shards), self.draw)
        elif what == "touch":
            for path in (self.data / "text.txt", self.data / "rows.jsonl"):
                os.utime(path)
        elif what not in ("host", "clock"):
            what = "none"
        self.tally.mishaps[what] += 1
        return what

    def _judge(self, home: Path, last: Life, whole: Whole) -> str:
        """Return what is wrong with a run that should have finished, or nothing."""
        if last.status != 0:
            return f"the last life ended with {last.status}"
        found = content(home)
        return ", ".join(name for name in whole.content if found[name] != whole.content[name])


def _has_finished(home: Path) -> bool:
    """Tell whether the death came after the run's end was noted."""
    rows = Store(home).rows(kind="train") if home.exists() else []
    return bool(rows) and rows[0].status == "finished"


def _go_on(asked: object, home: Path, mishap: str) -> None:
    """Resume the run `cut` of a home folder, or begin it if there is none; after a mishap of its surroundings."""
    if mishap == "host":
        platform.node = lambda: "elsewhere"
    if mishap == "clock":
        now = time.time
        time.time = lambda: now() - 1e7
        stores.now = lambda: "2020-01-01T00:00:00.000+00:00"
    rows = Store(home).rows(kind="train")
    if not rows:  # it died before the store knew of it
        train_model(asked, name="cut", home=home)  # type: ignore[arg-type]  # TrainingSettings
    elif rows[0].status != "finished":
        resume("cut", home=home)


def main() -> int:
    """Play rounds and print what happened; status 1 if a run ended otherwise than one that was left alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=300, help="rounds, spread evenly over the variants")
    parser.add_argument("--seed", type=int, default=0, help="decides variants, moments and mishaps")
    parser.add_argument("--variant", action="append", choices=VARIANTS, help="only these variants")
    parser.add_argument("--keep", action="store_true", help="keep the folder of the rounds")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    data, began = Path(tempfile.mkdtemp(prefix="kills-")), time.monotonic()
    rounds = Rounds(data, random.Random(asked.seed))
    chosen = asked.variant or list(VARIANTS)
    for number in range(asked.rounds):
        rounds.play(number, chosen[number % len(chosen)])
    _tell(rounds.tally, asked.rounds, len(chosen), time.monotonic() - began)
    if asked.keep or rounds.tally.wrong:
        print(f"kept: {data}")
    else:
        shutil.rmtree(data)
    return 1 if rounds.tally.wrong else 0


def _tell(tally: Tally, rounds: int, variants: int, seconds: float) -> None:
    deaths = sum(tally.lives.values()) - tally.lives["too late"]
    print(f"{rounds} rounds over {variants} variants, {deaths} deaths, {seconds:.0f} s")
    print("ways to die: " + ", ".join(f"{name} {count}" for name, count in sorted(tally.lives.items())))
    print("between lives: " + ", ".join(f"{name} {count}" for name, count in sorted(tally.mishaps.items())))
    print(f"runs that ended otherwise than one that was left alone: {len(tally.wrong)}")
    for line in tally.wrong:
        print(f"  {line}")


if __name__ == "__main__":
    sys.exit(main())
