"""One pass of ``zsar predict`` over its videos: it writes the records and reports on them."""

from __future__ import annotations

import contextlib
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from zsar_cli.cli.output.formats import Format
from zsar_cli.cli.output.sink import GROWING, SUBTITLES, Sink
from zsar_cli.cli.run_lines import answers_in, counted, tally_line
from zsar_cli.cli.signals import listening
from zsar_cli.prediction.inputs import same_input
from zsar_cli.prediction.records import NONE_OF_THESE, OBJECT
from zsar_cli.video.address import is_remote
from zsar_cli.video.states import with_states

if TYPE_CHECKING:
    from zsar_cli.cli.output.folders import VideoFolder
    from zsar_cli.cli.output.part import Part
    from zsar_cli.model.zsar import RecognizerModel
    from zsar_cli.prediction.clips import AnswerOptions, ClipOptions
    from zsar_cli.prediction.confidence import AnswerRule
    from zsar_cli.prediction.records import Failure, Prediction
    from zsar_cli.prediction.report import AnswersPage, FilmSize
    from zsar_cli.prediction.timeline import Timeline
    from zsar_cli.prediction.windows import WindowOptions
    from zsar_cli.recognizer import Recognizer
    from zsar_cli.text.embeddings import PromptEmbeddings
    from zsar_cli.text.labels import Labels

SHORT = 1.0  # s


@dataclass
class Run:
    """One pass over the videos, with the counts for its final report."""

    options: ClipOptions
    top_k: int
    rule: AnswerRule
    windows: WindowOptions | None = None
    embeddings: bool = False
    precision: str | None = None  # that stored embeddings were computed in
    explain: VideoFolder | None = None
    explain_labels: list[str] = field(default_factory=list)
    film: FilmSize | None = None  # of the cards of a page, where one was asked for
    page: AnswersPage | None = None
    part: Part | None = None  # of a shard, when it is complete
    stop: threading.Event = field(default_factory=threading.Event)
    started: bool = False
    done: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    short: int = 0
    tally: Counter[str] = field(default_factory=Counter)  # videos by answer
    review: str = "add --resume --report answers.html to review the answers."  # how the page is had later

    def calibrate(
        self, model: RecognizerModel, labels: Labels, templates: str, frames: int, target: str, typed: bool
    ) -> None:
        """Use the threshold that ``zsar eval --calibrate`` found for these settings, with a note on stderr.

        ``typed``: whether ``--calibration`` was given; then a note also says if there is none.
        """
        from zsar_cli.cli import console
        from zsar_cli.prediction import calibration

        found = calibration.bound(model, labels, templates, frames, target)
        if found is None:
            if typed:
                console.note(
                    "--calibration finds no calibration of this model with these labels, templates and frames; "
                    "zsar eval --calibrate makes one."
                )
            return
        least, gave = found
        if least is not None:
            self.rule = replace(self.rule, min_confidence=least)
        console.note(f"{gave}. Turn this off with --calibration off.")

    def all(
        self,
        recognizer: Recognizer,
        text: PromptEmbeddings,
        pool: Any,
        sink: Sink,
        paths: Iterator[str],
        total: int | None,
    ) -> None:
        """Process every video and write its record, with a progress bar."""
        by_time = self.windows is not None and total is not None and total - _done(sink) == 1

        def results(left: Iterator[str], advance: Callable[..., None]) -> Iterator[Any]:
            # a bar over one long video counts its seconds
            count_time = advance if by_time else (lambda seconds, length: None)
            return self._results(recognizer, text, pool, left, count_time)

        self.write_all(sink, paths, results, total=total, by_time=by_time)

    def write_all(
        self,
        sink: Sink,
        items: Iterable[Any],
        results: Callable[[Iterator[Any], Callable[..., None]], Iterator[Any]],
        *,
        video: Callable[[Any], str] = str,
        total: int | None = None,
        by_time: bool = False,
    ) -> None:
        """Write the records of all that has none yet, with a progress bar.

        Args:
            items: each is a video, or what is known of it.
            results: makes the results of items, in order; it may count on the bar itself, ``by_time``.
            video: the name of an item's video.
        """
        from zsar_cli.cli import console

        skip: Collection[str] = () if sink.file is None else sink.file.done
        objects = {} if sink.file is None else sink.file.objects
        if objects:
            items = with_states(
                items, lambda item: video(item) if same_input(video(item)) in objects else None
            )

        def remaining() -> Iterator[Any]:
            for item in items:
                if self.stop.is_set():
                    return
                key = sink.file.form.key(video(item)) if skip and sink.file is not None else ""
                if skip and key in skip and not changed_since(video(item), objects.get(key)):
                    self.skipped += 1
                else:
                    yield item

        self.started = True
        start = time.monotonic()
        left = None if total is None else total - len(skip)
        with console.progress(None if by_time else left, "s of video" if by_time else "videos") as advance:
            for result in results(remaining(), advance):
                record = with_object(result.to_record())
                sink.write(record)
                if self.page is not None:
                    self.page.add(record, self._filmstrip(result))
                self._remark(record, sink)
                if not by_time:
                    advance(1)
        self.seconds = time.monotonic() - start

    def _results(
        self,
        recognizer: Recognizer,
        text: PromptEmbeddings,
        pool: Any,
        paths: Iterator[str],
        count_time: Callable[[float, float | None], None],
    ) -> Iterator[Prediction | Timeline | Failure]:
        shown = self.film is not None
        if self.windows is not None:
            from zsar_cli.prediction.windows import run_windows

            model, stop = recognizer.model, self.stop
            timelines = run_windows(
                model,
                paths,
                text,
                pool,
                self.windows,
                shown=shown,
                stop=stop,
                report=count_time,
                times=recognizer.times,
            )
            if self.explain is None:
                return timelines
            from zsar_cli.cli.output.sheets import with_timeline_sheets

            return with_timeline_sheets(timelines, recognizer, text, pool, self)
        if self.explain is not None:
            from zsar_cli.cli.output.sheets import with_sheets

            return with_sheets(recognizer, paths, text, pool, self)
        return recognizer.run(paths, text, pool, self.options, self.answers, stop=self.stop)

    @property
    def answers(self) -> AnswerOptions:
        """What is answered about each video."""
        from zsar_cli.prediction.clips import AnswerOptions

        return AnswerOptions(self.top_k, self.rule, self.embeddings, shown=self.film is not None)

    def _filmstrip(self, result: Prediction | Timeline | Failure) -> dict[str, Any] | None:
        """Make the frames of a result for the report page; None if there is no page or no frames."""
        from zsar_cli.prediction.records import Failure
        from zsar_cli.prediction.report import filmstrip

        if self.film is None or isinstance(result, Failure):
            return None
        return filmstrip(result.shown, self.film, whole=self.windows is not None)

    def _remark(self, record: dict[str, Any], sink: Sink) -> None:
        """Count a record, and print its error to stderr."""
        from zsar_cli.cli import console

        self.done += 1
        self.tally.update(answers_in(record))
        if "error" in record:
            self.failed += 1
            if not sink.shows:
                console.error(f"{record['video']}: {record['error']['message']}")
        else:
            self.short += record["duration"] < SHORT

    def report_part(self, part: Part) -> None:
        """Print that a part is complete, and whether it was so before."""
        from zsar_cli.cli import console

        assert part.manifest is not None
        failed = sum(part.manifest.errors.values())
        kinds = ", ".join(f"{count} {kind}" for kind, count in part.manifest.errors.items())
        about = f"{counted(part.manifest.videos, 'video')}{f', {failed} failed ({kinds})' if failed else ''}"
        before = "" if self.started else " already"
        console.note(f"Shard {part.shard} is{before} complete: {about}, in {part}.")

    def report(self, output: str | None, format: Format) -> None:
        """Print the final report."""
        from zsar_cli.cli import console

        videos = "1 video" if self.done == 1 else f"{self.done} videos"
        skipped = f", {self.skipped} answered before" if self.skipped else ""
        failed = f"; {self.failed} failed (see the records)" if self.failed else ""
        if self.short:
            console.note(
                f"{self.short} of {videos} shorter than {SHORT:g} s: answers rely on appearance more than motion."
            )
        if format in SUBTITLES and (silent := self.tally[NONE_OF_THESE]):
            console.note(f"{silent} of {videos} without a cue: no answer reaches --min-confidence; lower it.")
        if self.stop.is_set():
            held = " Continue with --resume." if format in GROWING else f" Their records are in {output}."
            console.note(f"Interrupted after {videos}{skipped}{failed}.{held if output is not None else ''}")
        elif self.failed or self.skipped or (self.done != 1 and sys.stderr.isatty()):
            where = f", written to {output}" if output is not None else ""
            console.note(f"{videos} in {self.seconds:.1f} s{skipped}{failed}{where}.")
            if self.tally and sys.stderr.isatty():
                console.note(tally_line(self.tally))
            if output is not None and format == "jsonl" and self.page is None and sys.stderr.isatty():
                merge = f"zsar predict --merge {shlex.quote(output)} --output answers.jsonl, after the other shards."
                console.note(f"Next:  {self.review if self.part is None else merge}")


def _done(sink: Sink) -> int:
    return 0 if sink.file is None else len(sink.file.done)


def with_object(record: dict[str, Any]) -> dict[str, Any]:
    """Add the size and the etag of an object that was answered, by which a later run sees whether it changed."""
    if "error" in record or not is_remote(record["video"]):
        return record
    from zsar_cli.video.storage import known_state

    state = known_state(record["video"])
    return record if state is None or OBJECT in record else record | {OBJECT: state.to_record()}


def changed_since(video: str, said: dict[str, Any] | None) -> bool:
    """Tell whether an object is another than its record says; one that cannot be asked for has not changed."""
    if said is None:
        return False
    from zsar_cli.video.storage import known_state

    state = known_state(video)
    return state is not None and state.to_record() != said


@contextlib.contextmanager
def interruptible(run: Run) -> Iterator[None]:
    """End the run at Ctrl-C or SIGTERM: after the current records, or at once before it has begun or a second time."""

    def handle(number: int, frame: object) -> None:
        again = run.stop.is_set()
        if again or not run.started:
            raise KeyboardInterrupt
        run.stop.set()

    with listening(handle):
        yield
