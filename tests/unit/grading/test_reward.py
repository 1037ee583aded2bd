import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from rsp_rl.grading.reward import compute_score

KEYS = {
    "score", "acc", "pred", "extraction_step", "stage", "timeouts", "crashes", "unparsable",
    "no_answer", "boxed",
}  # fmt: skip


def test_right_and_wrong():
    right = compute_score("math500", r"so \boxed{\frac12}", "0.5", {})
    assert right["score"] == right["acc"] == 1.0
    assert (right["pred"], right["extraction_step"]) == (r"\frac12", "boxed")
    wrong = compute_score("math500", r"so \boxed{3}", "0.5")
    assert wrong["score"] == wrong["acc"] == 0.0


@pytest.mark.parametrize("output", [r"\boxed{5}", "no idea", r"\boxed{9^{9^{9^9}}}", ""])
@pytest.mark.parametrize("source", ["gsm8k", "arithmetic", "unknown"])
def test_every_answer_has_the_same_plain_fields(output, source):
    scores = compute_score(source, output, "5", extra_info=None, reward_router_address=None)
    assert set(scores) == KEYS
    assert all(type(value) in (float, str) for value in scores.values())
    assert json.loads(json.dumps(scores)) == scores


def test_gold_may_be_a_number():
    assert compute_score("arithmetic", r"\boxed{7}", 7)["score"] == 1.0


def test_format_reward_is_off_and_never_touches_accuracy():
    assert compute_score("math500", r"\boxed{3}", "5")["score"] == 0.0
    scores = compute_score("math500", r"\boxed{3}", "5", format_reward=0.1)
    assert (scores["score"], scores["acc"]) == (0.1, 0.0)
    assert compute_score("math500", "it is 3", "5", format_reward=0.1)["score"] == 0.0
    for named in (
        r"put it in \boxed{}",
        r"put it in \boxed{answer}",
        r"<think>\boxed{3}</think> 4",
    ):
        assert compute_score("math500", named, "5", format_reward=0.1)["score"] == 0.0
    assert compute_score("math500", r"\boxed{5}", "5", format_reward=0.1)["score"] == 1.0


def test_in_an_event_loop_as_the_reward_loop_calls_it():
    async def score(gold):
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(4) as threads:
            return await asyncio.gather(
                *(
                    loop.run_in_executor(
                        threads,
                        lambda n=n: compute_score("x", rf"\boxed{{\sin 2x+{n}}}", gold % n),
                    )
                    for n in range(6)
                )
            )

    assert [s["acc"] for s in asyncio.run(score(r"%d+\sin 2x"))] == [1.0] * 6


@pytest.mark.slow  # importing verl takes most of it
def test_verl_carries_the_fields():
    metric_utils = pytest.importorskip("verl.trainer.ppo.metric_utils")
    rows = [compute_score("m", rf"\boxed{{{n}}}", "5") for n in (5, 6, 5, 7)]
    infos = {key: [row[key] for row in rows] for key in rows[0]}
    metrics = metric_utils.process_validation_metrics(["m"] * 4, ["a", "a", "b", "b"], infos)
    assert metrics["m"]["acc"]["mean@2"] == 0.5
    assert metrics["m"]["timeouts"]["mean@2"] == 0.0
    assert "pred" not in metrics["m"]


@pytest.mark.slow
def test_verl_loads_the_function():
    import_utils = pytest.importorskip("verl.utils.import_utils")
    loaded = import_utils.load_extern_object("pkg://rsp_rl.grading.reward", "compute_score")
    assert loaded is compute_score
