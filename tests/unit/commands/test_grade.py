import argparse
import json

from rsp_rl.commands import grade as cli


def _grade(*arguments):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    args = parser.parse_args(["grade", *map(str, arguments), "--quiet", "--processes", "1"])
    return args.func(args)


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


ROWS = [
    {"output": r"\boxed{\frac12}", "gold": "0.5"},
    {"output": r"\boxed{2\sin x\cos x}", "gold": r"\sin 2x"},
    {"output": "The answer is 7.", "gold": "7", "benchmark": "gsm8k"},
    {"output": "no idea", "gold": "7"},
]


def test_summary_and_verdicts(tmp_path, capsys):
    file = tmp_path / "outputs.jsonl"
    _write(file, ROWS)
    assert _grade(file) == 0
    printed = capsys.readouterr().out
    assert "accuracy 0.7500 (3/4)" in printed
    assert "numeric says equal where string does not: 1" in printed
    assert "symbolic says equal where numeric does not: 1" in printed
    rows = [json.loads(line) for line in (tmp_path / "outputs.verdicts.jsonl").open()]
    assert [row["correct"] for row in rows] == [True, True, True, False]
    assert [row["index"] for row in rows] == [0, 1, 2, 3]


def test_resumes_after_a_line_that_was_cut_off(tmp_path, capsys):
    file, verdicts = tmp_path / "outputs.jsonl", tmp_path / "v.jsonl"
    _write(file, ROWS)
    assert _grade(file, "--verdicts", verdicts) == 0
    whole = verdicts.read_text()
    lines = whole.splitlines(keepends=True)
    kept = json.dumps({**json.loads(lines[0]), "extracted": "kept"}) + "\n"
    verdicts.write_text(kept + lines[1][:10])
    assert _grade(file, "--verdicts", verdicts) == 0
    assert verdicts.read_text() == kept + "".join(lines[1:])
    assert _grade(file, "--verdicts", verdicts, "--restart") == 0
    assert verdicts.read_text() == whole


def test_fields_are_configurable_and_missing_ones_are_named(tmp_path, capsys):
    file = tmp_path / "outputs.jsonl"
    _write(file, [{"response": r"\boxed{5}", "answer": "5"}])
    assert _grade(file, "--output-field", "response", "--gold-field", "answer") == 0
    assert _grade(file) == 2
    assert "no field 'output'" in capsys.readouterr().out
    assert _grade(tmp_path / "missing.jsonl") == 2


def test_golds_of_another_type(tmp_path, capsys):
    file = tmp_path / "outputs.jsonl"
    good = {"output": "\\boxed{5} \u2028", "gold": "5"}
    file.write_text(
        "".join(json.dumps({**good, "gold": g}, ensure_ascii=False) + "\n" for g in (5, 5.0, ["5"]))
    )
    assert _grade(file) == 0
    assert "accuracy 1.0000 (3/3)" in capsys.readouterr().out
    for changes, cause in (
        ({"gold": ["5", "6"]}, "line 2: 'gold' is a list of 2 answers"),
        ({"gold": None}, "line 2: 'gold' is missing"),
        ({"gold": float("nan")}, "line 2: 'gold' is nan"),
        ({"output": None}, "line 2: 'output' is None, not text"),
    ):
        _write(file, [good, {**good, **changes}])
        assert _grade(file, "--restart") == 2
        assert cause in capsys.readouterr().out
    file.write_text("{")
    assert _grade(file) == 2
    assert "line 1 is damaged" in capsys.readouterr().out


def test_an_empty_file(tmp_path, capsys):
    file = tmp_path / "empty.jsonl"
    file.write_text("")
    assert _grade(file) == 0
    assert "no answers" in capsys.readouterr().out
