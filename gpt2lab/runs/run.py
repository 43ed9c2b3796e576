"""A run: one execution with a folder of its own and a row in the store."""

import contextlib
import json
import re
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO, TypeVar

from gpt2lab.base.errors import LabError, system_error
from gpt2lab.base.files import atomic_file, atomic_write, sweep
from gpt2lab.base.json_numbers import as_number, encode, without
from gpt2lab.base.lease import Lease, LeaseLost
from gpt2lab.base.progress import Progress
from gpt2lab.base.progress import progress as show_progress
from gpt2lab.base.settings import defaults_and_help, to_plain
from gpt2lab.base.wording import number
from gpt2lab.runs.environment import environment
from gpt2lab.runs.home import FULL, check_name, disk_full
from gpt2lab.runs.metrics import cut_metrics
from gpt2lab.runs.provenance import DATA, ENVIRONMENT, gone_on, read_provenance, with_data
from gpt2lab.runs.run_record import RunRecord, read_json, record, write_table
from gpt2lab.runs.store import Row, Store, now
from gpt2lab.runs.tensorboard import EventWriter
from gpt2lab.runs.tidy import clear
from gpt2lab.runs.trial import SPLITS, Splits, merged, write_plain
from gpt2lab.text.data_read import Notes, noting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2lab.text.language_model import LanguageModel

T = TypeVar("T")
Logged = Callable[[int, Mapping[str, float]], None]
Shared = Callable[[float], None]

_METRICS = "metrics.jsonl"
_WORK = (_METRICS, "captions.json", "checkpoints", "model")  # what a run that did something has
_SHOWN = 4  # results that stand for a run in one line
_RESULT = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", re.ASCII)


class Run:
    """Where an experiment reports: numbers over steps, results, tables, figures, texts, arrays, files, models.

    A context manager: leaving it writes the results and marks the run finished, failed (with the sentence) or
    interrupted; a LabError or OSError before it has logged or reported anything leaves no run. Make one with `Run.start`
    or, for one that was stopped, `Run.reopen`. LeaseLost at the next write after another process has taken the run over.
    """

    def __init__(self, row: Row, store: Store, lease: Lease, device: str = "cpu") -> None:
        self.row, self.store, self.lease = row, store, lease
        self.id = row.id
        self.folder = row.folder(store.home)
        self.device = device
        """Where its tensors live: `cpu`, `cuda`, ..."""
        self.results: dict[str, float] = dict(row.numbers)
        self.arms: Mapping[str, RunRecord] = {}
        """The finished units of this seed, by name, at its end: its arms."""
        self.needed: Mapping[str, RunRecord] = {}
        """The finished units that this one needs, by name."""
        self.splits = Splits()
        """Which splits of the data chose and which are judged; see `chooses` and `judges`."""
        self.on_log: Logged | None = None
        """Called after every `log`."""
        self.on_share: Shared | None = None
        """Called by `share`."""
        self.ending = ("finished", "")
        """Status and message that it gets if nothing is raised."""
        self._is_new = False
        self._worked_before = row.seconds or 0.0
        self._began = time.monotonic()
        self._noting, self._notes = contextlib.ExitStack(), Notes()
        self._metrics: TextIO | None = None
        self._events: EventWriter | None = None
        self._logged: set[str] = set()
        self._logged_before = False
        """Whether an earlier process has logged."""

    @classmethod
    def start(
        cls,
        kind: str,
        name: str,
        *,
        home: Path | str | None = None,
        parent: "Run | str | None" = None,
        settings: Any = None,
        unused: Collection[str] = (),
        device: str = "cpu",
        **columns: Any,
    ) -> Self:
        """Make a run: a fresh folder, a row in the store, settings.json and environment.json.

        `settings` is a frozen dataclass or a mapping; its dotted names `unused` are left out. `columns` are further
        columns of the store (paper, scale, seed, arm, origin, settings_hash, command). LabError if the name cannot be a
        folder or the disk is full.
        """
        store = Store(home)
        above = parent.id if isinstance(parent, Run) else parent
        plain = to_plain(settings) if is_dataclass(settings) else dict(settings or {})
        plain = without(plain, unused)
        columns = {"origin": plain.get("origin"), **columns}
        identity = f"{above}/{name}" if above else ""
        row = Row(id=identity, name=name, kind=kind, parent=above, settings=encode(plain), **columns)
        made, lease = store.add(row)
        run = cls(made, store, lease, device)
        run._is_new = True
        try:
            run.write_file("settings.json", encode(plain, indent=2))
            run.write_file(ENVIRONMENT, gone_on(run.folder, environment(device), now()))
            if is_dataclass(settings):
                run.write_file("defaults.json", encode(defaults_and_help(type(settings)), indent=2))
        except BaseException as error:
            run.__exit__(type(error), error, error.__traceback__)
            raise
        return run

    @classmethod
    def reopen(
        cls,
        row: Row,
        home: Path | str | None = None,
        device: str = "cpu",
        *,
        clean: bool = False,
        anew: bool = False,
        take_over: bool = False,
        patience: float = 0.0,
    ) -> Self:
        """Go on with a run that was stopped, after deleting the half-written files that it has left.

        `clean` removes what it has reported, but no checkpoint; `anew`, with it, its checkpoints too. environment.json
        keeps what is known of the processes before, unless nothing of their work is left. take_over, patience: see
        `gpt2lab.base.lease.Lease.claim`.
        LabError if another process runs it.
        """
        store = Store(home)
        fresh, lease = store.claim(row, take_over=take_over, patience=patience)
        run = cls(fresh, store, lease, device)
        if clean:
            run.results = {}
            store.set_results(row.id, {})
        sweep(run.folder)
        # It may have died between its row and this file, and a file may be damaged.
        run.write_file("settings.json", encode(json.loads(row.settings), indent=2))
        if clean:
            clear(run.folder, checkpoints=anew)
        run.write_file(ENVIRONMENT, gone_on(run.folder, environment(device), now()))
        return run

    @property
    def seed(self) -> int:
        """The seed; 0 where none was given."""
        return self.row.seed or 0

    @property
    def arm(self) -> str | None:
        """The arm, if the run is one."""
        return self.row.arm

    @property
    def record(self) -> RunRecord:
        """The run as it lies on the disk."""
        return record(self.row, self.store.home)

    @property
    def checkpoints(self) -> Path:
        """The folder for checkpoints. A piece of a study that was stopped finds its checkpoints here again."""
        return self.folder / "checkpoints"

    def __repr__(self) -> str:
        shown = "".join(f", {name} {number(value)}" for name, value in list(self.results.items())[:_SHOWN])
        return f"<Run {self.id}: {self.row.status}{shown}>"

    def _repr_html_(self) -> str:
        """Return status and results as a notebook shows them."""
        from gpt2lab.runs.report.document import DataTable, Prose
        from gpt2lab.runs.report.html import to_fragment

        rows = [{"result": name, "value": value} for name, value in self.results.items()]
        about = Prose(f"`{self.id}`, {self.row.status}, in `{self.folder}`")
        return to_fragment(about, *([DataTable("", rows)] if rows else []))

    # What an experiment reports.

    def log(self, step: int, **numbers: Any) -> None:
        """Append numbers of one step to metrics.jsonl and to the TensorBoard file.

        After a run is reopened, the first row of a training drops what an earlier process logged of that training at that
        step and later. Rows belong to one training if they have a name in common.
        """
        plain = {name: float(as_number(name, value)) for name, value in numbers.items()}
        with self._writing():
            if self._metrics is None or self._events is None:
                self._metrics, self._events = self._open_logs(step)
            if self._logged_before and not plain.keys() & self._logged:
                seconds = cut_metrics(self.folder / _METRICS, step, plain.keys())
                self._began -= seconds if not self._logged else 0.0  # the seconds of the rows go on
            self._logged |= plain.keys()
            line = {"step": step, "seconds": round(time.monotonic() - self._began, 3), **plain}
            self._metrics.write(encode(line) + "\n")
            self._metrics.flush()
            self._events.scalars(step, plain)
        if self.on_log is not None:
            self.on_log(step, plain)

    def share(self, done: float) -> None:
        """Tell which share of its work is done, 0 to 1: the study reckons the time left from it."""
        if self.on_share is not None:
            self.on_share(min(max(done, 0.0), 1.0))

    def result(self, name: str, value: Any) -> None:
        """Report one number under a dotted name: `run.result("loss.adamw", 3.2)`.

        Names are what claims read, so each part is a word of letters, digits and _; LabError otherwise.
        """
        if not _RESULT.fullmatch(name):
            raise LabError(f"{name!r}: a result is named by words with dots between, such as loss.adamw_2")
        self.results[name] = as_number(name, value)

    def chooses(self, what: str, *, on: str) -> None:
        """State before the work that a learning rate, ... is chosen on a split; LabError if the split is judged, too."""
        self._use(Splits(chosen={on: what}))

    def judges(self, what: str, *, on: str) -> None:
        """State before the work that what claims read is measured on a split; LabError if anything is chosen on it."""
        self._use(Splits(judged={on: what}))

    def _use(self, more: Splits) -> None:
        self.splits = merged([self.splits, more])
        before = (*self.needed.values(), *self.arms.values())
        merged([self.splits, *(unit.splits for unit in before)]).apart()
        self.write_file(SPLITS, write_plain(self.splits))

    def table(self, name: str, rows: Iterable[Mapping[str, object]], caption: str = "") -> None:
        """Write rows to tables/NAME.csv; the keys of the rows are the columns."""
        self._keep("tables", name, "csv", write_table(list(rows)), caption)

    def figure(self, name: str, figure: "Figure | str | bytes", caption: str = "") -> None:
        """Write a matplotlib figure, or SVG text, to figures/NAME.svg; a screen reader reads the caption."""
        from gpt2lab.plots.figures import tidy_svg, to_svg

        if isinstance(figure, bytes):
            figure = figure.decode("utf-8")
        svg = tidy_svg(figure, caption) if isinstance(figure, str) else to_svg(figure, caption)
        self._keep("figures", name, "svg", svg, caption)

    def text(self, name: str, text: str, caption: str = "") -> None:
        """Write a text, such as samples, to texts/NAME.txt."""
        self._keep("texts", name, "txt", text, caption)

    def array(self, name: str, values: Any, caption: str = "") -> None:
        """Write an array of numbers to arrays/NAME.npy. LabError for what is no array of numbers or truth values."""
        from gpt2lab.measures.arrays import npy_bytes, number_array

        self._keep("arrays", name, "npy", npy_bytes(number_array(name, values)), caption)

    def file(self, name: str, content: bytes | Path, caption: str = "") -> None:
        """Write files/NAME (with its ending) from bytes or from a file; for what is no table, figure, text or array."""
        self._keep("files", name, "", content, caption)

    def model(self, lm: "LanguageModel", name: str = "model") -> Path:
        """Save a language model in Hugging Face's layout below the run's folder; return that folder."""
        from gpt2lab.text.language_model import save

        check_name(name)
        with self._writing():
            save(lm, self.folder / name)
        return self.folder / name

    def write_file(self, name: str, content: str | bytes | Path) -> None:
        r"""Write a file of the run's folder, whole or not at all; a Path is copied, halves of characters as `\udcef`."""
        with self._writing():
            if isinstance(content, Path):
                with atomic_file(self.folder / name) as temporary:
                    shutil.copyfile(content, temporary)
                return
            data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            atomic_write(self.folder / name, data)

    def note(self, sentence: str) -> None:
        """Append a line with the time to log.txt."""
        with self._writing(), (self.folder / "log.txt").open("ab") as log:
            log.write(f"{now()} {sentence}\n".encode("utf-8", "backslashreplace"))

    def progress(
        self,
        iterable: Iterable[T] | None = None,
        *,
        total: int | None = None,
        label: str = "",
        unit: str = "it",
    ) -> Progress[T]:
        """Show how far a loop is, on stderr; see `gpt2lab.base.progress.progress`."""
        return show_progress(iterable, total=total, label=label or self.id, unit=unit)

    # How it begins and ends.

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        self._notes = self._noting.enter_context(noting())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._noting.close()
            self._close(error)
        finally:
            self.lease.release()

    def _close(self, error: BaseException | None) -> None:
        """End the run as `error` says."""
        if isinstance(error, LeaseLost):
            self._close_logs()  # the run is another process's
        elif isinstance(error, OSError) and error.errno in FULL:
            self._end("failed", str(disk_full(self.folder)))
            raise disk_full(self.folder) from error
        elif isinstance(error, (LabError, OSError)) and self._is_new and not self._has_worked:
            self._close_logs()
            with contextlib.suppress(LabError, OSError):  # the first error is the one to tell
                self.store.remove(self.id)  # a mistake found before any work leaves no run
        elif error is None:
            self._end(*self.ending)
        elif isinstance(error, (KeyboardInterrupt, SystemExit)):
            self._end("interrupted", str(error) or "stopped by the user")
        else:
            message = system_error(error) if isinstance(error, OSError) else str(error)
            if not isinstance(error, (LabError, OSError)):
                message = f"{type(error).__name__}: {message}"
            with contextlib.suppress(LabError, OSError):  # the first error is the one to tell
                self.note("".join(traceback.format_exception(error)).rstrip())
            self._end("failed", message)

    def _end(self, status: str, message: str) -> None:
        """Write the results and the end of the run; one that has failed must not fail again over it."""
        lenient = (LabError, OSError) if status != "finished" else ()
        with contextlib.suppress(*lenient):
            self._close_logs()
        with contextlib.suppress(*lenient):
            self.write_file("results.json", encode(self.results, indent=2))
            if read := self._notes.found():
                self.write_file(DATA, with_data(read_provenance(self.folder).data, read))
            self.store.update(
                self.id,
                status=status,
                message=message,
                finished=now(),
                seconds=round(self._worked_before + time.monotonic() - self._began, 3),
                results=encode(self.results),
            )
            self.row = self.store.get(self.id) or self.row

    def _close_logs(self) -> None:
        files, self._metrics, self._events = (self._metrics, self._events), None, None
        for file in files:
            if file is not None:
                file.close()

    def _open_logs(self, step: int) -> tuple[TextIO, EventWriter]:
        """Open metrics.jsonl and an event file at the first step that this process logs."""
        path = self.folder / _METRICS
        self._logged_before = path.exists()
        events = EventWriter(self.folder)
        if self._logged_before:
            events.restart(step)
        return path.open("a", encoding="utf-8"), events

    def _keep(self, what: str, name: str, ending: str, content: str | bytes | Path, caption: str) -> None:
        """Write one table, figure, text, array or file, and its caption."""
        check_name(name)
        self.write_file(f"{what}/{name}.{ending}" if ending else f"{what}/{name}", content)
        path = self.folder / "captions.json"
        captions = read_json(path) if path.exists() else {}
        captions.setdefault(what, {})[name] = caption
        self.write_file("captions.json", encode(captions, indent=2))

    @property
    def _has_worked(self) -> bool:
        """Whether it leaves anything that is worth a folder."""
        return bool(self.results) or any((self.folder / name).exists() for name in _WORK)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """LeaseLost if another process has taken the run over; a full disk is one sentence."""
        self.lease.check()
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise disk_full(self.folder) from error
            raise
