"""The head of a README: written so that it is read back, whatever is in it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsp_rl.models.front_matter import front_matter, read_front_matter

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@given(head=st.dictionaries(TEXT, TEXT | st.lists(TEXT) | st.floats(allow_nan=False), max_size=4))
def test_what_is_written_is_read(head: dict, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("card") / "README.md"
    file.write_text(front_matter(head) + "\n# A model\n\n---\nmore: 1\n---\n", encoding="utf-8")
    assert read_front_matter(file) == head


@pytest.mark.parametrize(
    "text", ["", "# A model\n", "---\nlicense: mit\n", "text\n---\na: 1\n---\n"]
)
def test_no_head(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert read_front_matter(tmp_path / "README.md") is None
    assert read_front_matter(tmp_path / "none") is None


@pytest.mark.parametrize("text", ["---\na: [\n---\n", "---\n- a\n---\n", "---\n---\n"])
def test_a_head_that_is_no_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text)
    with pytest.raises(ValueError, match=r"\w"):
        read_front_matter(tmp_path / "README.md")
