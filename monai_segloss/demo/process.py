"""Programs of nnU-Net as subprocesses: their environment, their logs, and never two at work in one folder."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from monai_segloss.demo.problem import DemoError, explain
from monai_segloss.files import read_json, write_json

ENTRY_POINTS = {
    "nnUNetv2_plan_and_preprocess": (
        "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints",
        "plan_and_preprocess_entry",
    ),
    "nnUNetv2_train": ("nnunetv2.run.run_training", "run_training_entry"),
    "segloss": ("monai_segloss.cli", "main"),
    "nnUNetv2_predict": ("nnunetv2.inference.predict_from_raw_data", "predict_entry_point"),
}
POLL, PATIENCE = 0.2, 10.0  # seconds
# A program writes its number before anything else, so that it is known even if who started it is killed meanwhile.
NAMED = ("/bin/sh", "-c", 'echo $$ > "$0"; exec "$@"')
# glibc hands the memory of every layer back to the system and asks for it again; keeping it saves a quarter of the time.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}
# Threads that wait by spinning take the processor from the other one: on a busy machine an epoch took eight times as long.
WAIT_ASLEEP = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}


def environment(work: Path, device: str, processes: int) -> dict[str, str]:
    """The variables under which every program runs; those of the user win where they only concern speed.

    Args:
        work: folder of the run.
        device: cpu, cuda or mps.
        processes: how many of them read and write volumes.
    """
    from nnunet_trainers import extend_environment

    speed = {"nnUNet_def_n_proc": str(processes), **KEEP_MEMORY, **WAIT_ASLEEP}
    if device == "cuda":
        speed["nnUNet_compile"] = "f"  # compiling takes longer than the demo trains
    variables = {**speed, **os.environ, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "agg"}
    for name in ("raw", "preprocessed", "results"):
        variables[f"nnUNet_{name}"] = str(work / f"nnUNet_{name}")
    extend_environment(variables)
    return variables


def workers() -> int:
    """How many processes read and write volumes: one per core, few of them on a large machine."""
    return max(1, min(8, os.cpu_count() or 1))


def program(name: str) -> list[str]:
    """The command that starts a program with this interpreter, also where the environment is not active."""
    if name == "monai.bundle":
        return [sys.executable, "-m", name]
    sibling = shutil.which(name, path=str(Path(sys.executable).parent))
    module, function = ENTRY_POINTS[name]
    return [sibling] if sibling else [sys.executable, "-c", f"from {module} import {function}; {function}()"]


def refuse_missing_packages() -> None:
    """Refuse to begin without the packages of the extra ``nnunet``."""
    names = ("nnunetv2", "nibabel", "matplotlib", "jinja2")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(f"the demo needs {', '.join(missing)}: pip install 'monai-segloss[nnunet]'")


class Programs:
    """Starts programs for one work folder, one at a time.

    Args:
        work: the folder; logs go to its folder ``logs``.
        variables: the environment of every program.
        stop: set by another thread, it ends the program that runs and raises `KeyboardInterrupt` in the thread of `run`.
    """

    def __init__(self, work: Path, variables: Mapping[str, str], stop: threading.Event | None = None) -> None:
        self.work = work
        self.variables = dict(variables)
        self.stop = stop or threading.Event()
        self._lock: int | None = None

    @contextmanager
    def only_here(self) -> Iterator[None]:
        """Hold the folder; end what a killed run has left behind in it.

        Raises:
            DemoError: another run is at work in the folder.
        """
        self._lock = os.open(self.work / ".lock", os.O_RDWR | os.O_CREAT)
        try:
            if not _try_lock(self._lock):
                self._end_leftovers()
            write_json(self._note, {"host": socket.gethostname(), "run": os.getpid(), "program": None})
            yield
            self._note.unlink(missing_ok=True)
            self._program.unlink(missing_ok=True)
        finally:
            os.close(self._lock)
            self._lock = None

    @property
    def _note(self) -> Path:
        return self.work / ".running.json"

    @property
    def _program(self) -> Path:
        return self.work / ".program"

    def _end_leftovers(self) -> None:
        # The lock is handed down to programs and their forks: held without a living run it belongs to those it left.
        note = read_json(self._note) if self._note.exists() else {}
        run, host = note.get("run"), note.get("host")
        busy = host != socket.gethostname() or (run is not None and _alive(run))
        group = None if busy else self._left()
        if group is None:
            whose = f" (process {run} on {host})" if run else ""
            raise DemoError(f"another run{whose} is at work in {self.work}: wait for it or choose another folder")
        _end_group(group)
        assert self._lock is not None
        if not _try_lock(self._lock, PATIENCE):
            raise DemoError(f"process group {group} of an earlier run is still at work in {self.work}: end it first")

    def _left(self) -> int | None:
        """The program that a run has left; if that was killed while it started one, the program names itself soon."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            text = self._program.read_text() if self._program.exists() else ""
            if text.endswith("\n"):
                return int(text)
            time.sleep(POLL)
        return None

    def run(
        self, command: Sequence[str], stage: str, listen: Callable[[str], None], extra: Mapping[str, str] | None = None
    ) -> None:
        """Run one program to its end.

        Args:
            command: name of a program of nnU-Net and its arguments.
            stage: name of its log file.
            listen: is called with the text of the log as it grows.
            extra: variables that the user has not set.

        Raises:
            DemoError: it failed; with its reason, as far as its log tells.
        """
        log = self.work / "logs" / f"{stage}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        process: subprocess.Popen[bytes] | None = None
        try:
            with open(log, "ab") as stream:
                start = stream.tell()
                stream.write(f"$ {shlex.join(command)}\n".encode())
                stream.flush()
                variables = {**(extra or {}), **self.variables}
                with _defer_signals():
                    process = self._start([*program(command[0]), *command[1:]], stream.fileno(), variables)
            for text in _follow(log, start, process, self.stop):
                listen(text)
        except BaseException:
            if process is not None:
                _end_group(process.pid)
                process.wait()
            raise
        self._program.unlink(missing_ok=True)
        if process.returncode:
            raise explain(command[0], process.returncode, _tail(log, start), log)

    def _start(self, command: list[str], output: int, variables: dict[str, str]) -> subprocess.Popen[bytes]:
        inherited = () if self._lock is None or os.name == "nt" else (self._lock,)
        self._program.unlink(missing_ok=True)
        process = subprocess.Popen(
            command if os.name == "nt" else [*NAMED, str(self._program), *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=variables,
            pass_fds=inherited,
            start_new_session=os.name != "nt",
        )
        write_json(self._note, {"host": socket.gethostname(), "run": os.getpid(), "program": process.pid})
        return process


def _follow(log: Path, start: int, process: subprocess.Popen[bytes], stop: threading.Event) -> Iterator[str]:
    """Pieces of the log until the process has ended, or shall end."""
    with open(log, encoding="utf-8", errors="replace", newline="") as stream:
        stream.seek(start)
        ended = False
        while not ended:
            ended = process.poll() is not None
            if stop.is_set() and not ended:
                raise KeyboardInterrupt
            text = stream.read()
            if text:
                yield text
            elif not ended:
                time.sleep(POLL)


def _tail(log: Path, start: int) -> str:
    with open(log, "rb") as stream:
        stream.seek(start)
        return stream.read().decode("utf-8", "replace")


def _try_lock(descriptor: int, patience: float = 0.0) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: handles are not handed down, so there is nothing to find out
        return True
    end = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(POLL)
        except OSError:  # a network drive without locks
            return True


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def sigterm_as_keyboard_interrupt() -> Iterator[None]:
    """Let a polite request to end do what Ctrl-C does: end the program that runs, keep what is done."""

    def interrupt(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _defer_signals() -> Iterator[None]:
    """Requests to end wait until the block has ended, so that no program starts that nobody would end."""
    if threading.current_thread() is not threading.main_thread():  # where no signal is handled
        yield
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handled = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handled:
        signal.signal(number, lambda number, frame: came.append(number))
    try:
        yield
    finally:
        for number, handler in handled.items():
            signal.signal(number, handler)
    for request in came:
        signal.raise_signal(request)


def _end_group(group: int) -> None:
    """Ask a group of processes to end, then make it."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(group)], check=False, capture_output=True)
        return
    for what, patience in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 0.0)):
        try:
            os.killpg(group, what)
        except ProcessLookupError:
            return
        time.sleep(patience)
