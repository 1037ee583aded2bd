"""Recipes as Ray jobs: submit, follow, start again after a fault, stop, status.

`scripts/submit_ray_job.sh` is this module's command line in a checkout. From a wheel it is
`python -m rsp_rl.runs.jobs`, for a copied recipe (`rsp-rl recipe NAME --copy DIR`). A job runs a
recipe on the cluster's head node. The client follows its log and submits it again when it failed,
at most `--max-retries` times; the recipe then continues from the last checkpoint in its RUN_DIR. A
job that was stopped is not submitted again, nor one whose exit status says that its error would
come again (`rsp_rl.basics.exit_status`).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from rsp_rl.basics import exit_status
from rsp_rl.basics.errors import ConfigError
from rsp_rl.basics.package_files import CHECKOUT
from rsp_rl.runs.recipes import recipe_names, setting_names

#: How long the cluster may be out of reach before the client gives up following.
UNREACHABLE_S = 300.0
RECONNECT_S = 5.0
RETRY_DELAY_S = 5.0

#: How this command line is called, for messages.
_COMMAND = "scripts/submit_ray_job.sh" if CHECKOUT else "python -m rsp_rl.runs.jobs"
_START = "scripts/start_ray_cluster.sh" if CHECKOUT else "`ray start --head`"

#: What Ray's client raises while the cluster does not answer, or with an error of its own.
_UNREACHABLE = (OSError, aiohttp.ClientError, RuntimeError)


class JobError(RuntimeError):
    """A job that cannot be submitted or followed; the message names the cause and the mend."""


def recipe_settings(recipe: Path) -> dict[str, str]:
    """The recipe's variables that are set in this environment.

    They mean for a submitted recipe what they mean for `bash recipes/...`.
    """
    return {name: os.environ[name] for name in setting_names(recipe) if name in os.environ}


def job_request(recipe: str, arguments: Sequence[str], *, upload: bool) -> dict[str, Any]:
    """What `JobSubmissionClient.submit_job` needs to run a recipe.

    Args:
        recipe: A script, by its path from here or from the checkout.
        arguments: Hydra overrides for it.
        upload: Send the checkout's files with the job. Otherwise the job runs in the same folder
            on the cluster, the checkout or without one the current folder: a shared disk, or an
            image that has it.

    Raises:
        JobError: If there is no such recipe, an uploaded one would write into Ray's own temporary
            copy, or there is no checkout to upload.
        ConfigError: If a script that the recipe sources is not there.
    """
    script = _find(recipe)
    settings = recipe_settings(script)
    runtime_env: dict[str, Any] = {"env_vars": settings}
    if upload:
        if CHECKOUT is None:
            raise JobError(
                "--upload sends a checkout's files, and this rsp_rl was installed from a wheel; "
                "install it on the cluster, put the recipe on a shared disk, leave --upload out"
            )
        if not script.is_relative_to(CHECKOUT):
            raise JobError(f"{script} is not in {CHECKOUT}, which --upload sends; move it there")
        for name in setting_names(script):
            if name.endswith("_DIR") and not settings.get(name, "").startswith("/"):
                raise JobError(
                    f"{name}={settings.get(name, '')}: an uploaded job runs in a temporary copy of "
                    "the repository; set it to an absolute path on the cluster's shared disk"
                )
        runtime_env |= {"working_dir": str(CHECKOUT), "excludes": [".git"]}
        command = ["bash", str(script.relative_to(CHECKOUT)), *arguments]
        return {"entrypoint": shlex.join(command), "runtime_env": runtime_env}
    command = shlex.join(["bash", str(script), *arguments])
    entrypoint = f"cd {shlex.quote(str(CHECKOUT or Path.cwd()))} && {command}"
    return {"entrypoint": entrypoint, "runtime_env": runtime_env}


def _find(recipe: str) -> Path:
    """The script of that path."""
    script = Path(recipe)
    if not script.is_file() and CHECKOUT:
        script = CHECKOUT / recipe
    if script.is_file():
        return script.resolve()
    if CHECKOUT is None:
        raise JobError(
            f"no recipe {recipe} here; `rsp-rl recipe NAME --copy DIR` puts one there, of "
            f"{', '.join(recipe_names())}"
        )
    known = ", ".join(f"{name}.sh" for name in recipe_names())
    raise JobError(f"no recipe {recipe}; recipes/ has {known}")


def exit_code(job: JobDetails) -> int:
    """A finished job's exit status as a shell would give it; 1 if its process left none."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    code = job.driver_exit_code
    if not code:  # its supervisor or its node died
        return exit_status.BROKEN
    return code if code > 0 else 128 - code


def should_retry(job: JobDetails) -> bool:
    """Whether a finished job may do better when it is started again."""
    return job.status == JobStatus.FAILED and exit_code(job) != exit_status.WOULD_COME_AGAIN


def submit(client: JobSubmissionClient, name: str, request: dict[str, Any], retries: int) -> int:
    """Run a job to its end, submitting it again after a fault.

    Args:
        client: Of the cluster.
        name: What the submission ids begin with.
        request: See `job_request`.
        retries: Submissions after the first one, at most.

    Returns:
        The exit status of the last job.
    """
    started = datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in range(retries + 1):
        job_id = f"{name}-{started}" + (f"-retry{attempt}" if attempt else "")
        client.submit_job(submission_id=job_id, **request)
        _say(f"submitted {job_id}")
        job = follow(client, job_id)
        if not should_retry(job) or attempt == retries:
            break
        _say(f"retry {attempt + 1} of {retries} in {RETRY_DELAY_S:.0f} s")
        time.sleep(RETRY_DELAY_S)
    return exit_code(job)


def follow(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Print a job's log as it grows, until the job ends.

    Raises:
        JobError: If the cluster does not answer for `UNREACHABLE_S`; the job may go on.
    """
    shown = 0
    answered = time.monotonic()
    while True:
        try:
            shown = asyncio.run(_print_log(client, job_id, shown))
            job = client.get_job_info(job_id)
            answered = time.monotonic()
            if job.status.is_terminal():
                _say(f"{job_id}: {job.status}, exit status {exit_code(job)}")
                return job
        except KeyboardInterrupt:
            _say(
                f"{job_id} goes on, without retries; {_COMMAND} stop {job_id} ends it, "
                "`follow` in place of `stop` shows it again, `status` says how it is"
            )
            raise
        except _UNREACHABLE as error:
            if time.monotonic() - answered > UNREACHABLE_S:
                raise JobError(
                    f"the cluster has not answered for {UNREACHABLE_S:.0f} s ({error}); {job_id} "
                    f"may go on: once the cluster is back, `follow {job_id}`"
                ) from error
        time.sleep(RECONNECT_S)


async def _print_log(client: JobSubmissionClient, job_id: str, shown: int) -> int:
    """Print what is new in a log; each connection sends it from its beginning.

    Args:
        client: Of the cluster.
        job_id: The job.
        shown: Characters that were printed before.

    Returns:
        Characters that are printed by now; the connection has ended, by itself or not.
    """
    position = 0
    try:
        async for text in client.tail_job_logs(job_id):
            print(text[max(0, shown - position) :], end="", flush=True)
            position += len(text)
            shown = max(shown, position)
    except _UNREACHABLE:
        pass  # the status says whether the job has ended
    return shown


def _say(line: str) -> None:
    print(f"ray job: {line}", file=sys.stderr, flush=True)


def _client(address: str | None) -> JobSubmissionClient:
    try:
        return JobSubmissionClient(address)
    except (OSError, RuntimeError) as error:
        where = address or os.environ.get("RAY_ADDRESS") or "this machine"
        raise JobError(
            f"no Ray cluster answers at {where} ({error}); start one with {_START}, or "
            "name one with --address or RAY_ADDRESS (http://HEAD:8265)"
        ) from error


def _submit(client: JobSubmissionClient, args: argparse.Namespace) -> int:
    if args.max_retries < 0:
        raise JobError(f"--max-retries={args.max_retries} must be 0 or more")
    request = job_request(args.recipe, args.overrides, upload=args.upload)
    return submit(client, Path(args.recipe).stem, request, args.max_retries)


def _follow(client: JobSubmissionClient, args: argparse.Namespace) -> int:
    client.get_job_info(args.job)  # an error where there is no such job, and no wait for it
    return exit_code(follow(client, args.job))


def _stop(client: JobSubmissionClient, args: argparse.Namespace) -> int:
    client.stop_job(args.job)
    while not (status := client.get_job_status(args.job)).is_terminal():
        time.sleep(1)
    print(f"{args.job}: {status}")
    return 0


def _status(client: JobSubmissionClient, args: argparse.Namespace) -> int:
    jobs = [client.get_job_info(args.job)] if args.job else client.list_jobs()
    for job in sorted(jobs, key=lambda job: job.start_time or 0):
        print(f"{job.submission_id or job.job_id}  {job.status}  {job.message or ''}")
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line of `scripts/submit_ray_job.sh`."""
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__)
    parser.add_argument("--address", help="of the cluster, http://HEAD:8265; default: RAY_ADDRESS")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    command = commands.add_parser("submit", help="submit a recipe and follow it (the default)")
    command.add_argument("--max-retries", type=int, default=int(os.environ.get("MAX_RETRIES", 3)))
    command.add_argument("--upload", action="store_true", help="send the repository's files along")
    command.add_argument("recipe", help="recipes/....sh")
    command.add_argument("overrides", nargs=argparse.REMAINDER, help="Hydra overrides for it")
    command.set_defaults(func=_submit)
    for name, function, text in (
        ("follow", _follow, "print a job's log until it ends"),
        ("stop", _stop, "stop a job"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("job", help="submission id")
        command.set_defaults(func=function)
    command = commands.add_parser("status", help="of one job, or of all")
    command.add_argument("job", nargs="?", help="submission id")
    command.set_defaults(func=_status)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line."""
    args = build_parser().parse_args(argv)
    try:
        return args.func(_client(args.address), args)
    except (ConfigError, *_UNREACHABLE) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_status.BROKEN
    except KeyboardInterrupt:
        return exit_status.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
