"""FileWatch: whoever changes the file, and however, it is noticed once; what is no change is not."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest
from doubles.http_plane import until

from gogate_py.config.named_files import digest
from gogate_py.process import file_watch
from gogate_py.process.file_watch import FileWatch, places_of


class Watched:
    """A watch that counts. ``quiet`` waits until everything that was done so far has been looked at."""

    def __init__(self, path: Path, *, events: bool = True) -> None:
        self.path = path
        self.changes = 0
        self._news = asyncio.Event()
        self.watch = FileWatch(str(path), self._changed, events=events)
        self.watch.start()

    def _changed(self) -> None:
        self.changes += 1
        self._news.set()

    async def change(self) -> str:
        """The content after the next change."""
        async with asyncio.timeout(5.0):
            await self._news.wait()
        self._news.clear()
        return self.path.read_text()

    async def quiet(self) -> None:
        """Write something else and wait for it: changes come in order, so nothing that was before is still to come."""
        before = self.changes
        self.path.write_text(self.path.read_text() + "\n# the end\n")
        await self.change()
        assert self.changes == before + 1


def run(
    path: Path, body: Callable[[Watched], Coroutine[object, object, None]], *, events: bool = True
) -> None:
    """Run a test's body while the file is watched."""

    async def main() -> None:
        watched = Watched(path, events=events)
        try:
            await body(watched)
        finally:
            watched.watch.stop()

    asyncio.run(main())


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short waits, and no polling unless a test wants it: what is seen is seen by events."""
    monkeypatch.setattr(file_watch, "DEBOUNCE", 0.03)
    monkeypatch.setattr(file_watch, "POLL", 1000.0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text("one\n")
    return path


def test_written_in_place(file: Path) -> None:
    """cat > file; several writes in a row are one change."""

    async def body(watched: Watched) -> None:
        with file.open("w") as out:
            for word in ("tw", "o", "\n"):
                out.write(word)
                out.flush()
        assert await watched.change() == "two\n"
        await watched.quiet()

    run(file, body)


def test_replaced_by_rename(file: Path) -> None:
    """As editors and configuration management do; the next change of the new file is seen, too."""

    async def body(watched: Watched) -> None:
        for text in ("two\n", "three\n"):
            new = file.with_suffix(".new")
            new.write_text(text)
            new.rename(file)
            assert await watched.change() == text
        await watched.quiet()

    run(file, body)


def config_map(folder: Path, version: str, text: str) -> None:
    """What the kubelet does: a folder with the files, a link to it beside, renamed over ..data."""
    (folder / version).mkdir()
    (folder / version / "config.yaml").write_text(text)
    (folder / "..data_tmp").symlink_to(version)
    (folder / "..data_tmp").rename(folder / "..data")


def test_swapped_as_config_maps_are(tmp_path: Path) -> None:
    """config.yaml → ..data/config.yaml → ..2026_01/config.yaml: only ..data is touched, again and again."""
    config_map(tmp_path, "..2026_01", "one\n")
    file = tmp_path / "config.yaml"
    file.symlink_to("..data/config.yaml")

    async def body(watched: Watched) -> None:
        for version in ("..2026_02", "..2026_03"):
            config_map(tmp_path, version, f"{version}\n")
            assert await watched.change() == f"{version}\n"

    run(file, body)


def test_the_file_behind_a_link_in_another_folder(tmp_path: Path) -> None:
    """The target of a link is watched where it is; a link in the path to it, too."""
    real = tmp_path / "real"
    real.mkdir()
    (real / "file").write_text("one\n")
    (tmp_path / "etc").symlink_to("real")
    file = tmp_path / "config.yaml"
    file.symlink_to("etc/file")

    async def body(watched: Watched) -> None:
        (real / "file").write_text("two\n")
        assert await watched.change() == "two\n"
        other = tmp_path / "other"
        other.mkdir()
        (other / "file").write_text("three\n")
        (tmp_path / "etc.new").symlink_to("other")
        (tmp_path / "etc.new").rename(tmp_path / "etc")
        assert await watched.change() == "three\n"

    run(file, body)


def test_a_touch_is_nothing(file: Path) -> None:
    """Times, permissions and the same content once more are no change."""

    async def body(watched: Watched) -> None:
        os.utime(file, (1, 1))
        file.chmod(0o600)
        file.write_text("one\n")
        await watched.quiet()

    run(file, body)


def test_gone_and_back(file: Path) -> None:
    """A file that is away for a moment is no change; when it is back with the same content, neither; with another, yes.
    """

    async def body(watched: Watched) -> None:
        file.unlink()
        file.write_text("one\n")
        await watched.quiet()
        file.unlink()
        file.write_text("two\n")
        assert await watched.change() == "two\n"

    run(file, body)


def test_a_busy_folder_does_not_keep_it_waiting(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that is written beside it all the time, faster than DEBOUNCE, is passed over."""
    monkeypatch.setattr(file_watch, "DEBOUNCE", 0.2)
    monkeypatch.setattr(file_watch, "PATIENCE", 1000.0)

    async def body(watched: Watched) -> None:
        done = threading.Event()

        def write() -> None:
            with file.with_suffix(".log").open("w") as log:
                while not done.wait(0.005):
                    log.write("x\n")
                    log.flush()

        writer = threading.Thread(target=write)
        writer.start()
        try:
            file.write_text("two\n")
            assert await watched.change() == "two\n"
        finally:
            done.set()
            writer.join()

    run(file, body)


def test_patience_ends(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is touched without a pause is read all the same."""
    monkeypatch.setattr(file_watch, "DEBOUNCE", 0.2)
    monkeypatch.setattr(file_watch, "PATIENCE", 0.3)

    async def body(watched: Watched) -> None:
        done = threading.Event()

        def touch() -> None:
            while not done.wait(0.005):
                os.utime(file)

        toucher = threading.Thread(target=touch)
        file.write_text("two\n")
        toucher.start()
        try:
            assert await watched.change() == "two\n"
        finally:
            done.set()
            toucher.join()

    run(file, body)


def test_without_events_it_is_looked_at(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network file systems and bind mounts send none: every POLL seconds the content is compared."""
    monkeypatch.setattr(file_watch, "POLL", 0.05)

    async def body(watched: Watched) -> None:
        file.write_text("two\n")
        assert await watched.change() == "two\n"
        await watched.quiet()

    run(file, body, events=False)


def test_a_folder_that_is_replaced_is_watched_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the folder was moved away the poll finds the new one, and from then on events are seen there."""
    monkeypatch.setattr(file_watch, "POLL", 0.05)
    folder = tmp_path / "conf"
    folder.mkdir()
    file = folder / "config.yaml"
    file.write_text("one\n")

    async def body(watched: Watched) -> None:
        folder.rename(tmp_path / "old")
        folder.mkdir()
        file.write_text("two\n")
        assert await watched.change() == "two\n"
        monkeypatch.setattr(file_watch, "POLL", 1000.0)
        file.write_text("three\n")
        assert await watched.change() == "three\n"
        await watched.quiet()

    run(file, body)


def test_no_inotify_left_is_no_end(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a watch (fs.inotify.max_user_instances) it says so, and looks now and then."""

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("watchdog.observers.inotify.InotifyEmitter.on_thread_start", full)
    monkeypatch.setattr(file_watch, "POLL", 0.05)

    async def body(watched: Watched) -> None:
        file.write_text("two\n")
        assert await watched.change() == "two\n"

    run(file, body)
    assert "looked at every few seconds" in caplog.text


def test_swaps_leave_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    """Each swap of a ConfigMap is watched in another folder; what watched the old one ends."""
    config_map(tmp_path, "..0", "0\n")
    file = tmp_path / "config.yaml"
    file.symlink_to("..data/config.yaml")

    async def body(watched: Watched) -> None:
        def held() -> tuple[int, int]:
            return threading.active_count(), len(os.listdir("/proc/self/fd"))

        async def swap(number: int) -> None:
            config_map(tmp_path, f"..{number}", f"{number}\n")
            await watched.change()

        await swap(1)  # the first brings what stays: watchdog's own
        threads, descriptors = held()
        for number in range(2, 13):
            await swap(number)
        # A thread that was told to end takes its time.
        await until(lambda: held()[0] <= threads and held()[1] <= descriptors, "threads and descriptors of the old")

    run(file, body)


def test_a_loop_of_links_has_an_end(tmp_path: Path) -> None:
    """Links that lead to themselves are places like any other, each once."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert places_of(str(tmp_path / "a")) == {str(tmp_path / "a"), str(tmp_path / "b")}


def test_files_that_are_followed(tmp_path: Path, file: Path) -> None:
    """Each of them counts as the file does, links and all; one that is not there yet, when it comes."""
    config_map(tmp_path, "..1", "certificate\n")
    secret, missing = tmp_path / "tls.crt", tmp_path / "sub" / "tls.key"
    missing.parent.mkdir()
    secret.symlink_to("..data/config.yaml")

    async def body(watched: Watched) -> None:
        watched.watch.follow({str(secret): digest(b"certificate\n"), str(missing): b""})
        config_map(tmp_path, "..2", "another\n")
        await watched.change()
        missing.write_text("key\n")
        await watched.change()
        await watched.quiet()
        assert watched.changes == 3

    run(file, body)


def test_a_file_that_changed_since_it_was_read(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between reading and watching nothing is missed, whatever was seen before."""
    monkeypatch.setattr(file_watch, "POLL", 0.05)
    other = tmp_path / "users"
    other.write_text("new\n")

    async def body(watched: Watched) -> None:
        watched.watch.follow({str(other): digest(b"old\n")})
        await watched.change()
        watched.watch.follow({str(other): None})  # what was seen last is known
        await watched.quiet()

    run(file, body, events=False)


def test_what_is_not_followed_any_more(tmp_path: Path, file: Path) -> None:
    """It may change as it likes."""
    other = tmp_path / "users"
    other.write_text("old\n")

    async def body(watched: Watched) -> None:
        watched.watch.follow({str(other): digest(b"old\n")})
        watched.watch.follow({})
        other.write_text("new\n")
        await watched.quiet()

    run(file, body)


def test_what_changed_before_it_was_watched_needs_no_poll(tmp_path: Path, file: Path) -> None:
    """A swap between reading and watching is seen at once, at the start and for files that are new."""
    other = tmp_path / "sub" / "users"
    other.parent.mkdir()
    other.write_text("new\n")

    async def body(watched: Watched) -> None:
        watched.watch.follow({str(other): digest(b"old\n")})
        await watched.change()
        await watched.quiet()

    run(file, body)
