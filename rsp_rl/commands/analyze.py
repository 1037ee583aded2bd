"""`rsp-rl analyze NAME`: the paper's tables and figures of RSP at inference."""

from __future__ import annotations

import argparse

from rsp_rl.analysis import (
    attention_mass,
    condition_protocols,
    coverage,
    dials_table,
    distributions,
    diversity,
    first_token,
    latent_tree,
    law_table,
    length_table,
    likelihoods,
    mode_table,
    pass_at_n,
    position_table,
    thoughts,
    trained_or_random,
    training_table,
)


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Register the `analyze` command and its sub-commands."""
    parser = commands.add_parser("analyze")
    names = parser.add_subparsers(metavar="NAME", required=True)
    for module in (
        condition_protocols,
        position_table,
        length_table,
        trained_or_random,
        pass_at_n,
        coverage,
        distributions,
        first_token,
        diversity,
        attention_mass,
        dials_table,
        training_table,
        thoughts,
        law_table,
        mode_table,
        likelihoods,
        latent_tree,
    ):
        module.add_parser(names)
