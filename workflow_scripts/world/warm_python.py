"""Run a command whose Python scripts start with the large libraries already imported.

    python -m workflow_scripts.world.warm_python snakemake --profile profiles/demo

Importing torch, diffusers and the like takes seconds, as long as the embedded world's jobs
themselves. While the command runs, a server process imports them once and forks for every
`python -m workflow_scripts...` of a rule. A script gets the arguments, environment, folder and
standard streams of its caller, and imports the project's own modules itself. If the server does not
answer, plain Python runs the script.

This file also serves as the `python` that rules find while the command runs, and as the server.
Both run it as a plain file, so it imports the standard library alone.
"""

import array
import contextlib
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Final, NoReturn, TextIO

PACKAGE: Final = "workflow_scripts"
FOLDER: Final = "CHEXGENBENCH_PYTHON"
"""The environment variable with the folder whose `python` the rules prefer to any other."""

COLD_STARTS: Final = 3
"""Scripts that start in plain Python before the libraries are imported."""

_NAME: Final = "chexgenbench-warm-python"
_SOCKET: Final = "socket"
_COLD: Final = "cold-starts"
_STREAMS: Final = 3
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_KEEPING: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""Tell glibc, when the server starts, to keep the memory that a script frees.

By default it returns large blocks, and the kernel clears the pages of each step's arrays again.
This takes a third of the time in which a small convolutional network trains on one core.
"""

LIBRARIES: Final = (
    "threadpoolctl",
    "numpy",
    "pandas",
    "scipy.linalg",
    "scipy.ndimage",
    "scipy.spatial",
    "scipy.stats",
    "pyarrow.csv",
    "pyarrow.parquet",
    "h5py",
    "jsonschema",
    "PIL.Image",
    "torch",
    "torch.utils.data",
    "safetensors.torch",
    "tokenizers",
    "sentencepiece",
    "accelerate:Accelerator",
    "peft:LoraConfig",
    *(
        f"transformers:{name}"
        for name in (
            "AutoTokenizer",
            "BertModel",
            "BertTokenizer",
            "CLIPTextModel",
            "CLIPTextModelWithProjection",
            "CLIPTokenizer",
            "Dinov2Model",
            "Gemma2Model",
            "GPTNeoXForCausalLM",
            "LlamaForCausalLM",
            "LlamaTokenizer",
            "LlavaForConditionalGeneration",
            "PreTrainedTokenizerFast",
            "T5EncoderModel",
        )
    ),
    *(
        f"diffusers:{name}"
        for name in (
            "AutoencoderDC",
            "AutoencoderKL",
            "DPMSolverMultistepScheduler",
            "FluxPipeline",
            "Lumina2Pipeline",
            "PixArtSigmaPipeline",
            "SanaPipeline",
            "StableDiffusion3Pipeline",
            "StableDiffusionPipeline",
            "VQModel",
        )
    ),
    "monai.losses",
    "monai.metrics",
    "monai.networks.nets",
    "nltk",
    "sacrebleu.metrics",
    "matplotlib.figure",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_pdf",
    "matplotlib.backends.backend_svg",
    "jinja2",
)
"""What the server imports before it forks: `module`, or `module:attribute` for attributes that a
library imports lazily. Missing modules are left to the scripts."""


def run(command: Sequence[str]) -> int:
    """Run a command with warm Python for the rules' scripts; return its exit status.

    Args:
        command: the words of the command.
    """
    with warm_python() as folder:
        return subprocess.run(command, env=os.environ | {FOLDER: str(folder)}).returncode


@contextlib.contextmanager
def warm_python(
    libraries: Sequence[str] = LIBRARIES, cold_starts: int = COLD_STARTS
) -> Iterator[Path]:
    """Yield a folder with a `python` that starts scripts warm while the context lasts.

    Args:
        libraries: see `LIBRARIES`.
        cold_starts: number of scripts that start in plain Python before the server imports the
            libraries, so that a run of few jobs does not pay for the imports.
    """
    with tempfile.TemporaryDirectory(prefix=f"{_NAME}-") as name:
        folder = Path(name)
        shim = folder / "python"
        # -I and -S ignore the environment and site-packages, which saves time.
        shim.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -IS "{Path(__file__).resolve()}" ask "$0" "$@"\n',
            encoding="utf-8",
        )
        shim.chmod(0o755)
        ended = threading.Event()
        starter = threading.Thread(
            target=_serve_when_wanted, args=(folder, libraries, cold_starts, ended)
        )
        starter.start()
        try:
            yield folder
        finally:
            ended.set()
            starter.join()


def _serve_when_wanted(
    folder: Path, libraries: Sequence[str], cold_starts: int, ended: threading.Event
) -> None:
    counted = folder / _COLD
    counted.touch()
    while counted.stat().st_size < cold_starts:
        if ended.wait(0.2):
            return
    environment = _KEEPING | os.environ | _OFFLINE | dict.fromkeys(_ONE_THREAD, "1")
    environment.pop("PYTHONPATH", None)
    words = [sys.executable, str(Path(__file__).resolve()), "serve", str(folder / _SOCKET)]
    # The server ends with this process, however it ends, since only this one holds the pipe open.
    with subprocess.Popen([*words, *libraries], stdin=subprocess.PIPE, env=environment) as server:
        ended.wait()
        server.terminate()


# ---- the process that forks


def serve(address: str, libraries: Sequence[str]) -> None:
    """Import the libraries, then fork for each request at a socket, until standard input ends.

    Args:
        address: path of the socket to create.
        libraries: see `LIBRARIES`.

    Raises:
        RuntimeError: a library has started threads, which a fork would lose.
    """
    _import(libraries)
    gc.collect()
    gc.freeze()  # keeps these pages shared with the forked scripts
    if threading.active_count() != 1:
        raise RuntimeError("an imported library has started threads")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process ends the server
    wake, woken = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, _nothing)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(f"{address}.new")
    listener.listen(64)
    Path(f"{address}.new").rename(address)  # the final name exists once the socket answers
    running: dict[int, socket.socket] = {}
    with selectors.DefaultSelector() as ready:
        for source in (listener, wake, 0):
            ready.register(source, selectors.EVENT_READ)
        while True:
            for key, _ in ready.select():
                if key.fileobj == 0:
                    return
                if key.fileobj == wake:
                    os.read(wake, 4096)
                    _tell_ended(running, ready)
                elif key.fileobj is listener:
                    _start(listener, running, ready)
                else:  # the asking process is gone, so its script ends, too
                    for pid, asker in running.items():
                        if asker is key.fileobj:
                            ready.unregister(asker)
                            os.kill(pid, signal.SIGKILL)


def _import(libraries: Sequence[str]) -> None:
    """Import them silently; in a cold start, their messages are in the scripts' logs."""
    shown = os.dup(2)
    hidden = os.open(os.devnull, os.O_WRONLY)
    os.dup2(hidden, 2)
    try:
        for library in libraries:
            module, _, attribute = library.partition(":")
            with contextlib.suppress(ImportError, AttributeError):
                loaded = importlib.import_module(module)
                if attribute:
                    getattr(loaded, attribute)
    finally:
        os.dup2(shown, 2)
        os.close(shown)
        os.close(hidden)


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _tell_ended(running: dict[int, socket.socket], ready: selectors.BaseSelector) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            asker = running.pop(pid)
            with contextlib.suppress(OSError):
                asker.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
            with contextlib.suppress(KeyError):
                ready.unregister(asker)
            asker.close()


def _start(
    listener: socket.socket, running: dict[int, socket.socket], ready: selectors.BaseSelector
) -> None:
    asker, _ = listener.accept()
    descriptors: list[int] = []
    try:
        head, descriptors = _receive(asker)
        request = json.loads(head)
    except (OSError, ValueError):  # the asking process died meanwhile
        for descriptor in descriptors:
            os.close(descriptor)
        asker.close()
        return
    pid = os.fork()
    if not pid:
        others = [asker, listener, *running.values()]
        _become(request, descriptors, others)
    for descriptor in descriptors:
        os.close(descriptor)
    running[pid] = asker
    ready.register(asker, selectors.EVENT_READ)
    with contextlib.suppress(OSError):
        asker.sendall(f"{pid}\n".encode())


def _receive(asker: socket.socket) -> tuple[bytes, list[int]]:
    numbers = array.array("i")
    message, ancillary, _, _ = asker.recvmsg(65536, socket.CMSG_LEN(_STREAMS * numbers.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
    parts = [message]
    while not parts[-1].endswith(b"\n"):
        parts.append(asker.recv(65536))
        if not parts[-1]:
            raise OSError("the request ended early")
    return b"".join(parts), list(numbers)


def _become(request: dict, descriptors: Sequence[int], others: Sequence[socket.socket]) -> NoReturn:
    """Run a script in this forked process as if the asking process had started it; never return."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for other in others:
        other.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
        os.close(descriptor)
    with contextlib.suppress(OSError):  # in another session, signals would miss it
        os.setpgid(0, request["group"])
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.stdout, sys.stderr = (_stream(sys.stdout, 1), _stream(sys.stderr, 2))
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:1] = [request["folder"], *filter(None, paths)]
    sys.argv = [request["module"], *request["arguments"]]
    _set_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    code = 1
    try:
        for path in filter(None, paths):  # as Python does at its start
            if Path(path, "sitecustomize.py").is_file():
                sys.modules.pop("sitecustomize", None)
                importlib.import_module("sitecustomize")
        # As with `python -m`, the script is `__main__` to the end, also for exit functions.
        sys.modules["__main__"] = ModuleType("__main__")
        runpy._run_module_as_main(request["module"])  # type: ignore[attr-defined]
        code = 0
    except SystemExit as end:
        code = _status(end)
    except BaseException:
        traceback.print_exc()
    _leave(code)


def _stream(old: TextIO, number: int) -> TextIO:
    buffer = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(buffer),
        encoding=old.encoding,
        errors=old.errors,
        line_buffering=number == 2 or buffer.isatty(),
    )


def _set_threads(count: int) -> None:
    """Set the number of threads in libraries that read it from the environment only on import."""
    if "threadpoolctl" in sys.modules:
        sys.modules["threadpoolctl"].threadpool_limits(limits=count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


def _status(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _leave(code: int) -> NoReturn:
    """End as an interpreter does: threads joined, exit functions called, streams flushed."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        code = code or 120
    os._exit(code)


# ---- the `python` that rules find


def ask(shim: str, arguments: Sequence[str]) -> NoReturn:
    """Let the server run a script, and end as the script ends; without a server, be plain Python.

    Args:
        shim: this `python`; the socket is in the same folder.
        arguments: the arguments of this `python`.
    """
    name = arguments[1] if len(arguments) > 1 and arguments[0] == "-m" else ""
    asked = None
    if name.startswith(f"{PACKAGE}."):
        folder = Path(shim).parent
        asked = _request(folder / _SOCKET, name, arguments[2:])
        if asked is None:
            with contextlib.suppress(OSError), (folder / _COLD).open("a") as counted:
                counted.write(".")
    if asked is None:
        os.execv(sys.executable, [sys.executable, *arguments])
    with asked, asked.makefile("r", encoding="ascii") as answers:
        pid = int(answers.readline() or 0)
        if not pid:
            raise SystemExit("error: warm Python ended before it started a script")

        def forward(number: int, frame: FrameType | None) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

        signal.signal(signal.SIGTERM, forward)
        signal.signal(signal.SIGINT, _nothing)  # the script is in the same process group
        answer = answers.readline()
    if not answer:
        raise SystemExit("error: warm Python ended while a script ran")
    code = int(answer)
    if code < 0:  # a signal ended it, and the parent has to see the same
        with contextlib.suppress(OSError):  # SIGKILL cannot be handled anyway
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _request(address: Path, module: str, arguments: Sequence[str]) -> socket.socket | None:
    umask = os.umask(0)
    os.umask(umask)
    request = {
        "module": module,
        "arguments": list(arguments),
        "folder": str(Path.cwd()),
        "environment": dict(os.environ),
        "group": os.getpgrp(),
        "umask": umask,
    }
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(str(address))
        # File descriptors travel with the first byte.
        text = json.dumps(request).encode() + b"\n"
        streams = array.array("i", range(_STREAMS))
        sent = connection.sendmsg(
            [text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, streams.tobytes())]
        )
        connection.sendall(text[sent:])
    except OSError:
        connection.close()
        return None
    return connection


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words:
        raise SystemExit((__doc__ or "").split("\n\n")[1])
    if words[0] == "serve":
        serve(words[1], words[2:])
    elif words[0] == "ask":
        ask(words[1], words[2:])
    else:
        raise SystemExit(run(words))


if __name__ == "__main__":
    main()
