"""An error of somebody else's code names what was loaded, the first cause and its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rsp_rl.basics.errors import ConfigError, PlacementError
from rsp_rl.basics.loading import load


def test_what_loads_comes_back() -> None:
    assert load("a number", lambda: 7) == 7


def test_an_error_names_the_first_cause_and_its_line(tmp_path: Path) -> None:
    file = tmp_path / "theirs.py"
    file.write_text("1 // 0\n")

    def loader() -> None:
        try:
            exec(compile(file.read_text(), str(file), "exec"))
        except ZeroDivisionError as error:
            raise ImportError("wrapped") from error

    with pytest.raises(ConfigError) as raised:
        load("their module", loader, "mend it")
    said = str(raised.value)
    assert said.startswith("their module cannot be loaded: ZeroDivisionError: ")
    assert said.endswith(f"({file}, line 1); mend it")


def test_an_error_that_names_its_mend_stays() -> None:
    def loader() -> None:
        raise PlacementError("there is no place")

    with pytest.raises(PlacementError, match=r"^there is no place$"):
        load("anything", loader)
