"""What the project's plug-in costs `vllm serve` on requests that ask for no soft prompt.

    python scripts/bench/server.py --model runs/dapo_rsp_tiny_cpu/checkpoints/global_step_30/merged

Two servers of the same model run side by side: `with` has the plug-in, `without` is started with
VLLM_PLUGINS="", which makes vLLM load none. The same plain chat requests go to both with the openai
client, in turn (with, without, without, with, ...), one server at work at a time. Printed are the
medians over rounds of the seconds a round takes and of the latency of a request, and their ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import openai

PLUGINS = {"with": None, "without": ""}
"""Value of VLLM_PLUGINS by server; None leaves it unset: all installed plug-ins are loaded."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder")
    parser.add_argument("--requests", type=int, default=64, help="a round")
    parser.add_argument("--concurrency", type=int, default=8, help="requests at once")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10, help="of each server")
    parser.add_argument("--output", type=Path, help="json file for every measurement")
    parser.add_argument("server_options", nargs="*", help="of `vllm serve`, after --")
    args = parser.parse_args()
    with ExitStack() as stack:
        urls = {
            name: stack.enter_context(server(args.model, plugins, args.server_options))
            for name, plugins in PLUGINS.items()
        }
        # Not measured: what the first requests compile and cache.
        expected = {name: asyncio.run(ask(url, args))[2] for name, url in urls.items()}
        if expected["with"] != expected["without"]:
            sys.exit(f"error: the servers answer differently: {expected}")
        rounds: dict[str, list[list[float]]] = {name: [] for name in urls}
        for number in range(args.rounds):
            # Which one comes first takes turns too: a drift of the machine hits both alike.
            for name in sorted(urls, reverse=number % 2 == 1):
                seconds, latencies, _ = asyncio.run(ask(urls[name], args))
                rounds[name].append([seconds, statistics.median(latencies)])
                print(f"round {number + 1}: {name:<8} {seconds:.3f} s", flush=True)
    report(rounds)
    if args.output:
        args.output.write_text(json.dumps(rounds))


def report(rounds: dict[str, list[list[float]]]) -> None:
    """Medians and ratios."""
    for column, what in enumerate(("a round takes", "a request takes")):
        values = {name: [row[column] for row in found] for name, found in rounds.items()}
        medians = {name: statistics.median(found) for name, found in values.items()}
        pairs = [a / b for a, b in zip(values["with"], values["without"], strict=True)]
        quartiles = statistics.quantiles(pairs, n=4)
        print(
            f"{what} {medians['with']:.4f} s with the plug-in, {medians['without']:.4f} s without "
            f"(medians of {len(pairs)} rounds): ratio {medians['with'] / medians['without']:.3f}; "
            f"by round {statistics.median(pairs):.3f} (median), quartiles {quartiles[0]:.3f} to "
            f"{quartiles[2]:.3f}"
        )


async def ask(
    base_url: str, args: argparse.Namespace
) -> tuple[float, list[float], tuple[str | None, ...]]:
    """One round: seconds in all, seconds of each request, and what was answered (greedily)."""
    gate = asyncio.Semaphore(args.concurrency)
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:

        async def one(number: int) -> tuple[float, str | None]:
            async with gate:
                begun = time.monotonic()
                answer = await client.chat.completions.create(
                    model="model",
                    messages=[{"role": "user", "content": f"{number % 7 + 1}+{number % 9 + 1}"}],
                    temperature=0,
                    max_tokens=args.max_tokens,
                    extra_body={"ignore_eos": True},
                )
                return time.monotonic() - begun, answer.choices[0].message.content

        begun = time.monotonic()
        answers = await asyncio.gather(*(one(number) for number in range(args.requests)))
    latencies, texts = zip(*answers, strict=True)
    return time.monotonic() - begun, list(latencies), texts


@contextmanager
def server(model: Path, plugins: str | None, options: list[str]) -> Iterator[str]:
    """A running server's address."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("vllm")), "serve", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model"]
    command += ["--enable-prompt-embeds", *options]
    environment = {name: value for name, value in os.environ.items() if name != "VLLM_PLUGINS"}
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; counts on a CPU only
    if plugins is not None:
        environment["VLLM_PLUGINS"] = plugins
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}/v1"
        except BaseException:
            log.seek(0)
            print(log.read().decode(errors="replace")[-3000:], file=sys.stderr)
            raise
        finally:
            process.terminate()
            process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + 600
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    sys.exit("error: the server did not start; its log:")


if __name__ == "__main__":
    main()
