"""The source `recall-task`: examples of a task, written to a folder."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gpt2lab.base.errors import LabError
from gpt2lab.base.files import atomic_folder, sha256
from gpt2lab.base.json_files import write_json
from gpt2lab.papers.meta_tokens.levels import examples, level
from gpt2lab.papers.meta_tokens.tasks import PAUSE, Example, vocabulary
from gpt2lab.text.manifests import MANIFEST, refuse_foreign


@dataclass(frozen=True, kw_only=True)
class RecallTask:
    """Train and test examples of a recall task, of which no prompt is in both.

    A row has prompt, answer, text (both), task, level, and the places of the pauses. LabError, when it writes, for an
    unknown task or level, too few different prompts, and a folder that holds something else.
    """

    task: str
    """Task: list-recall, segment-counting, parity, copying."""
    level: str = "easy"
    """Words of a prompt: easy, medium, hard, extra-hard, long."""
    train: int = 9000
    """Training examples."""
    test: int = 1000
    """Test examples."""
    words: int = 500
    """Different words that occur, of 500."""
    pause: str = PAUSE
    """How the pause is written, such as <|meta|>, the token that `gpt2lab apply add-meta-token` adds."""
    pauses: bool = True
    """Keep the pauses; without them the same questions are written for a baseline."""
    seed: int = 0
    """Seed of the examples."""

    def __call__(self, out: Path) -> dict[str, object]:
        """Write the folder and return its manifest."""
        if min(self.train, self.test) < 1:
            raise LabError(f"train and test must be at least 1, got {self.train} and {self.test}")
        vocabulary(self.words)  # refuses fewer than two, and more than there are
        refuse_foreign(out, "data of a recall task")
        ranges = [level(self.level)]
        made = {
            part: examples(self.task, count, ranges, seed=self.seed, part=part, words=self.words)
            for part, count in (("train", self.train), ("test", self.test))
        }
        manifest: dict[str, object] = asdict(self)
        with atomic_folder(out) as temporary:
            for part, rows in made.items():
                (temporary / f"{part}.jsonl").write_text("".join(map(self._row, rows)), encoding="utf-8")
            manifest["sha256"] = {part: sha256(temporary / f"{part}.jsonl") for part in made}
            write_json(temporary / MANIFEST, manifest)
        return manifest

    def _row(self, one: Example) -> str:
        kept = one if self.pauses else one.without_pauses()
        row = {
            "prompt": " ".join(self.pause if word == PAUSE else word for word in kept.prompt),
            "answer": " ".join(kept.answer),
            "text": kept.text(self.pause),
            "task": one.task,
            "level": self.level,
            "pauses": kept.pauses,
        }
        return json.dumps(row) + "\n"
