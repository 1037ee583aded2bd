"""The first line of what ended a run is its cause, and its exit status whether to try again."""

from __future__ import annotations

import errno

import pytest
from ray.exceptions import ActorDiedError, RayTaskError

from rsp_rl.basics.errors import ConfigError, PlacementError, RunBrokenError
from rsp_rl.basics.exit_status import BROKEN, WOULD_COME_AGAIN
from rsp_rl.training.causes import comes_again, creation_error, first_line, root_cause, status


def wrapped(error: Exception, times: int = 1, pid: int = 0) -> Exception:
    """As Ray hands an error through so many processes; the first of them is `pid`."""
    for number in range(times):
        text = "Traceback (most recent call last):\n" + "  File x\n" * 50 + repr(error)
        text = f"ray::run() (pid={pid + number}, ip=10.0.0.1)\n{text}"
        outer = RayTaskError("run", text, error, "title", pid + number, "10.0.0.1")
        error = outer.as_instanceof_cause()
    return error


@pytest.mark.parametrize("times", [0, 1, 3])
@pytest.mark.parametrize(
    ("error", "line", "code"),
    [
        (ConfigError("data.seed=7"), "data.seed=7", WOULD_COME_AGAIN),
        (PlacementError("no place"), "no place", WOULD_COME_AGAIN),
        (RunBrokenError("rank 0 died"), "rank 0 died", BROKEN),
        (AssertionError("len\nmore"), "AssertionError: len", WOULD_COME_AGAIN),
        (AttributeError("no such name"), "AttributeError: no such name", WOULD_COME_AGAIN),
        (ModuleNotFoundError("No module"), "ModuleNotFoundError: No module", WOULD_COME_AGAIN),
        (KeyError("acc"), "KeyError: 'acc'", WOULD_COME_AGAIN),
        (UnicodeDecodeError("utf8", b"x", 0, 1, "bad"), "UnicodeDecodeError: ", WOULD_COME_AGAIN),
        (RuntimeError("CUDA error"), "RuntimeError: CUDA error", BROKEN),
        (ConnectionError(), "ConnectionError", BROKEN),
        (
            OSError(errno.ENOSPC, "No space left on device", "/run/samples/1.jsonl"),
            "OSError: [Errno 28] No space left on device: '/run/samples/1.jsonl'; make room there",
            BROKEN,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_the_cause_comes_first(error: Exception, line: str, code: int, times: int) -> None:
    cause, pid = root_cause(wrapped(error, times, pid=77))
    assert type(cause) is type(error)
    assert pid == (77 if times else None)
    said = first_line(cause, pid)
    assert said.startswith(line)
    assert "\n" not in said
    known = isinstance(error, ConfigError | PlacementError | RunBrokenError)
    assert ("in pid=77" in said) == (times > 0 and not known)
    assert status(cause, stepped=False) == code
    # Once a step was made, only what the project itself refuses would come again.
    kept = isinstance(error, ConfigError | PlacementError)
    assert status(cause, stepped=True) == (code if kept else BROKEN)


def died(text: str) -> Exception:
    error = ActorDiedError()
    error.args = (text,)
    error.error_msg = text
    return error


@pytest.mark.parametrize(
    ("last", "code"),
    [
        ("AssertionError: len must be smaller", WOULD_COME_AGAIN),
        ("builtins.AttributeError: no such function", WOULD_COME_AGAIN),
        ("torch.OutOfMemoryError: CUDA out of memory", BROKEN),
        ("KeyError", WOULD_COME_AGAIN),
        ("something else", BROKEN),
    ],
)
def test_an_actor_that_could_not_be_made(last: str, code: int) -> None:
    head = "The actor died because of an error raised in its creation task, ray::X.__init__()\n"
    error = died(head + "  File x, line 3\n" * 40 + last + "\n")
    assert creation_error(str(error)) == last
    assert first_line(error, 5).startswith(f"{last} (in pid=5): a part of the run could not")
    assert status(error, stepped=False) == code
    assert status(error, stepped=True) == BROKEN


def test_an_actor_that_died_is_another_matter() -> None:
    error = died("The actor died unexpectedly before finishing this task. pid: 7")
    assert creation_error(str(error)) is None
    assert status(error, stepped=False) == BROKEN


@pytest.mark.parametrize("line", ["", "(", "Exception: x", "print: x", "OSError: disk"])
def test_lines_that_name_no_error_of_settings(line: str) -> None:
    assert not comes_again(line)


def test_a_first_line_that_only_announces_has_the_next_beside_it() -> None:
    """As Hydra's of what it calls."""
    error = RuntimeError("Error in call to target 'A':\nValueError('no such mode')\nfull_key: a")
    said = "RuntimeError: Error in call to target 'A': ValueError('no such mode')"
    assert first_line(error) == said
    assert first_line(RuntimeError("")) == "RuntimeError"
    assert first_line(RuntimeError("only:")) == "RuntimeError: only:"
