"""What each section of the paper needs: evaluations, and the analyses that read them.

A plan is data. An evaluation is a protocol, known by its fingerprint: two analyses, of one section
or of several, that need the same one share it. An analysis is a module with a function
`analyse(folders, output, **options)`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from rsp_rl.analysis.condition_protocols import condition_protocols
from rsp_rl.analysis.dials_table import dial_name
from rsp_rl.basics.errors import ConfigError
from rsp_rl.comparators.ltpo import Ltpo
from rsp_rl.data.templates import TextTemplate, get_template
from rsp_rl.dials.options import RspOptions
from rsp_rl.evaluation.compare import run_folders
from rsp_rl.evaluation.protocol import Protocol
from rsp_rl.reproduce import paper
from rsp_rl.thoughts.names import law_from_settings
from rsp_rl.thoughts.settings import ThoughtSettings


@dataclass(frozen=True)
class Evaluation:
    """One condition.

    Attributes:
        label: As shown.
        protocol: Its protocol.
    """

    label: str
    protocol: Protocol

    @property
    def name(self) -> str:
        """Of its folder: equal for equal protocols, and for no others."""
        return f"{self.label}-{self.protocol.fingerprint()[:8]}"


@dataclass(frozen=True)
class Analysis:
    """One table or figure.

    Attributes:
        name: Of its folder, its files, and its numbers in `paper` and `measured`.
        title: What of the paper it is.
        module: Whose `analyse` makes it.
        reads: The evaluations whose folders it gets.
        runs: Folders that the user gave instead, as on a command line.
        options: Of `analyse`; plain types.
        figure: Name of the figure's file without its ending; `name` if None.
        remark: What a reader must know.
    """

    name: str
    title: str
    module: str
    reads: tuple[Evaluation, ...] = ()
    runs: tuple[str, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    figure: str | None = None
    remark: str = ""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for.

    Attributes:
        model: Name of the model, for Table 7's L.
        protocol: What all evaluations have in common; `rsp.length` 0 for the paper's L.
        own_benchmarks: Whether its benchmarks are the user's choice; else a section takes the
            paper's of them.
        lengths: L to choose among (Table 7).
        samples: Answers a problem for pass@N.
        held_out_half: Whether pass@N's problems are chosen by one half of twice as many answers.
        trajectories: Answers a problem for semantic diversity.
        embedder: For semantic diversity.
        dial_lengths: L of the dials.
        dial_scales: Scales of the dials.
        dial_laws: Laws of the dials.
        dial_samples: Sampled answers a problem, for dials and format.
        other_templates: Templates that are not the model's own, for format.
        thought_samples: Answers a problem, for thoughts.
        comparators: A method and `key=value` settings each, for Table 1.
        runs: Evaluated training runs, as for `rsp-rl compare`.
    """

    model: str
    protocol: Protocol
    own_benchmarks: bool = False
    lengths: tuple[int, ...] = (10, 15, 20)
    samples: int = 16
    held_out_half: bool = False
    trajectories: int = paper.DIVERSITY_TRAJECTORIES
    embedder: str = "BAAI/bge-m3"
    dial_lengths: tuple[int, ...] = (1, 5, 10, 20, 40)
    dial_scales: tuple[float, ...] = (0.0, 0.25, 0.5, 2.0)
    dial_laws: tuple[str, ...] = ("sphere", "vocab", "fixed")
    dial_samples: int = 4
    other_templates: tuple[str, ...] = ("raw", "abel")
    thought_samples: int = 4
    comparators: tuple[tuple[str, ...], ...] = ()
    runs: tuple[str, ...] = ()

    def benchmarks(self, papers: Iterable[str]) -> list[str]:
        """The benchmarks of a section: the paper's that the protocol has, or all it has."""
        names = [plan.benchmark for plan in self.protocol.benchmarks]
        chosen = [name for name in papers if name in names]
        return names if self.own_benchmarks or not chosen else chosen

    def asking(self, benchmarks: Iterable[str], length: int) -> Protocol:
        """The protocol with some of its benchmarks, and with the user's L or else this one."""
        plans = {plan.benchmark: plan for plan in self.protocol.benchmarks}
        chosen = tuple(plans[name] for name in benchmarks)
        return replace(
            self.protocol,
            benchmarks=chosen,
            headline=tuple(plan.benchmark for plan in chosen),
            rsp=replace(self.protocol.rsp, length=self.protocol.rsp.length or length),
        )

    @property
    def prompt_kind(self) -> str:
        """`paper.RAW` or `paper.CHAT`."""
        template = get_template(self.protocol.template)
        turns = not isinstance(template, TextTemplate) or template.closing
        return paper.CHAT if turns else paper.RAW

    def paper_length(self, benchmark: str) -> int:
        """L of Table 7, 0 if it has none for this model, kind of prompt and benchmark."""
        return paper.LENGTHS.get((self.model, self.prompt_kind, benchmark), 0)

    def comparators_for(self, benchmark: str) -> list[tuple[str, ...]]:
        """The comparators, LTPO with the paper's preset for a benchmark if it was given none."""
        made = []
        for method, *settings in self.comparators:
            preset = None
            if method == Ltpo.method and not any(s.startswith("preset=") for s in settings):
                preset = paper.paper_preset(method, self.model, benchmark)
            named = [f"preset={preset}"] if preset else []
            made.append((method, *named, *settings))
        return made


def make_plan(
    sections: Iterable[str], wanted: Wanted, only: Collection[str] = ()
) -> dict[str, list[Analysis]]:
    """The analyses of each section, in order.

    Args:
        sections: Keys of `SECTIONS`.
        wanted: What the user asked for.
        only: Names of the analyses to make; all if empty.

    Raises:
        ConfigError: On an unknown section or analysis, if one lacks something, or on a law that
            inserts nothing.
    """
    if wanted.protocol.rsp.adds:
        raise ConfigError(
            f"rsp.law={wanted.protocol.rsp.law} inserts nothing, and the paper's sections are of "
            "soft prompts that are inserted; leave rsp.law and rsp.scale out"
        )
    plan = {}
    for section in sections:
        if section not in SECTIONS:
            raise ConfigError(f"--section {section} is unknown; use one of {', '.join(SECTIONS)}")
        plan[section] = SECTIONS[section](wanted)
    names = [analysis.name for analyses in plan.values() for analysis in analyses]
    if unknown := sorted(set(only) - set(names)):
        raise ConfigError(f"--only {unknown[0]} is unknown here; use some of {', '.join(names)}")
    if not only:
        return plan
    kept = {section: [a for a in analyses if a.name in only] for section, analyses in plan.items()}
    return {section: analyses for section, analyses in kept.items() if analyses}


def evaluations(plan: Mapping[str, Iterable[Analysis]]) -> list[Evaluation]:
    """Every evaluation that a plan needs, each once."""
    needed = [e for analyses in plan.values() for analysis in analyses for e in analysis.reads]
    return list({evaluation.name: evaluation for evaluation in needed}.values())


def _positions(protocol: Protocol) -> dict[str, Evaluation]:
    """Baseline, prefix, infix, suffix; those with soft prompts labelled with their L."""
    made = condition_protocols("positions", protocol)
    return {name: _labelled(name, protocol) for name, protocol in made.items()}


def _draws(protocol: Protocol, samples: int) -> dict[str, Evaluation]:
    """The four conditions of Figure 4, labelled with their samples a problem as well."""
    made = condition_protocols("pass-at-n", protocol, samples=samples)
    return {name: _labelled(f"{name}_x{samples}", protocol) for name, protocol in made.items()}


def _labelled(name: str, protocol: Protocol) -> Evaluation:
    label = f"{name}_L{protocol.rsp.length}" if protocol.rsp.enabled else name
    if len(protocol.benchmarks) == 1:
        label += f"_{protocol.benchmarks[0].benchmark}"
    return Evaluation(label, replace(protocol, name=label))


def accuracy(wanted: Wanted) -> list[Analysis]:
    """Section 4.2: random or trained, where they go, how long they are (Tables 1, 2, 6 and 7).

    An evaluation a benchmark, because L differs between them.
    """
    benchmarks = wanted.benchmarks(paper.BENCHMARKS)
    by_position: list[Evaluation] = []
    by_length: list[Evaluation] = []
    by_method: list[Evaluation] = []
    for benchmark in benchmarks:
        length = wanted.paper_length(benchmark)
        if not (length or wanted.protocol.rsp.enabled):
            raise ConfigError(
                f"the paper's Table 7 has no L for {wanted.model} with {wanted.prompt_kind} on "
                f"{benchmark}; set one: rsp.length=20"
            )
        protocol = wanted.asking([benchmark], length)
        positions = _positions(protocol)
        by_position += positions.values()
        methods = condition_protocols(
            "trained-or-random", protocol, comparators=wanted.comparators_for(benchmark)
        )
        by_method += [positions["baseline"], positions["suffix"]]
        by_method += [_labelled(method, methods[method]) for method, *_ in wanted.comparators]
        for other in wanted.lengths:
            protocol = wanted.asking([benchmark], other)
            protocol = replace(protocol, rsp=replace(protocol.rsp, length=other))
            by_length.append(_positions(protocol)["suffix"])
    analyses = [
        Analysis(
            "positions",
            "Tables 2 and 6: accuracy by position",
            "rsp_rl.analysis.position_table",
            tuple(by_position),
        )
    ]
    if wanted.comparators:
        analyses.append(
            Analysis(
                "trained_or_random",
                "Table 1: random soft prompts beside trained ones",
                "rsp_rl.analysis.trained_or_random",
                tuple(by_method),
                remark="Trained ones are run by transformers, whatever engine runs the others. "
                "LTPO has the paper's settings of each benchmark, unless others were given. The "
                "paper's RSP is the best of three positions on the problems that it reports, here "
                "it is the suffix; its SoftCoT learned from GSM8K for all three benchmarks.",
            )
        )
    if len(wanted.lengths) > 1:
        analyses.append(
            Analysis(
                "lengths",
                "Table 7: length of the soft prompt",
                "rsp_rl.analysis.length_table",
                tuple(by_length),
                remark="The paper's L is the best on the very problems that it reports; here one "
                "half of the problems chooses.",
            )
        )
    return analyses


def mechanism(wanted: Wanted) -> list[Analysis]:
    """Section 4.3: how soft prompts work (Figures 2, 3, 6, 7, Table 9, Theorem 1)."""
    benchmarks = wanted.benchmarks(("math500",))
    conditions = _positions(wanted.asking(benchmarks, paper.MECHANISM_LENGTH))
    attended = _positions(wanted.asking(benchmarks, paper.ATTENTION_LENGTH))["suffix"]
    return [
        Analysis(
            "distributions",
            "Figures 3 and 6, Table 9: distributions along the answer",
            "rsp_rl.analysis.distributions",
            tuple(conditions.values()),
            remark="The paper's overall top-1 probability is a weighted mean of three segments of "
            "the answer (0.1, 0.8, 0.1), here it is the mean over all tokens.",
        ),
        Analysis(
            "attention",
            "Figures 2 and 7, Theorem 1: attention on soft prompt and question",
            "rsp_rl.analysis.attention_mass",
            (attended,),
        ),
    ]


def diversity(wanted: Wanted) -> list[Analysis]:
    """Section 4.4: first token, semantic diversity, pass@N (Tables 3, 4, 10, Figure 4)."""
    benchmarks = wanted.benchmarks(("math500", "aime24"))
    samples = wanted.samples * (2 if wanted.held_out_half else 1)
    conditions = _draws(wanted.asking(benchmarks, paper.MECHANISM_LENGTH), samples)
    few_problems = wanted.asking(benchmarks[:1], paper.MECHANISM_LENGTH)
    (asked,) = few_problems.benchmarks
    limit = min(asked.limit or paper.DIVERSITY_PROBLEMS, paper.DIVERSITY_PROBLEMS)
    few_problems = replace(few_problems, benchmarks=(replace(asked, limit=limit),))
    trajectories = _draws(few_problems, wanted.trajectories)
    return [
        Analysis(
            "first_token",
            "Table 3: the first token",
            "rsp_rl.analysis.first_token",
            (conditions["independent_greedy"],),
        ),
        Analysis(
            "diversity",
            "Table 4: semantic diversity",
            "rsp_rl.analysis.diversity",
            (trajectories["baseline_sampled"], trajectories["independent_sampled"]),
            options={"embedder": wanted.embedder},
        ),
        Analysis(
            "pass_at_n",
            "Figure 4: pass@N",
            "rsp_rl.analysis.pass_at_n",
            tuple(conditions.values()),
            options={"held_out_half": True} if wanted.held_out_half else {},
        ),
        Analysis(
            "coverage",
            "Table 10: problems solved with and without soft prompts",
            "rsp_rl.analysis.coverage",
            (conditions["baseline_sampled"], conditions["independent_sampled"]),
            remark=f"A problem counts as solved if one of {samples} samples is right; "
            "`analysis/coverage/coverage.html` shows the problems that differ.",
        ),
    ]


def training(wanted: Wanted) -> list[Analysis]:
    """Section 4.5: DAPO with soft prompts (Figure 5, Tables 5 and 13), from finished runs."""
    if not wanted.runs:
        raise ConfigError(
            "section 4.5 is made from training runs, which this command does not start: train with "
            "recipes/dapo_qwen7b.sh and recipes/dapo_rsp_qwen7b.sh, evaluate each with "
            "eval/eval_checkpoints.sh RUN_DIR, then give both: --runs "
            f"{paper.DAPO}=RUN_DIR {paper.DAPO_RSP}=RUN_DIR (the names say which is which)"
        )
    analyses = [
        Analysis(
            "comparison",
            "Figure 5, Tables 5 and 13: training with and without soft prompts",
            "rsp_rl.evaluation.compare",
            runs=wanted.runs,
            figure="curves",
            remark=f"The paper's numbers stand beside the runs called {paper.DAPO} and "
            f"{paper.DAPO_RSP}.",
        )
    ]
    seeds = {len(run_folders(text)[1]) for text in wanted.runs}
    if len(seeds) == 1 and seeds != {1}:  # else there are no pairs
        analyses.append(
            Analysis(
                "training",
                "Section 4.5: held out, pass@k and entropy, paired by seed",
                "rsp_rl.analysis.training_table",
                runs=wanted.runs,
            )
        )
    return analyses


def dials(wanted: Wanted) -> list[Analysis]:
    """Length, scale and law as dials, one at a time; the paper turns L alone (Table 7)."""
    protocol = wanted.asking(wanted.benchmarks(("math500",)), paper.MECHANISM_LENGTH)
    usual = protocol.rsp
    turned = [replace(usual, length=length) for length in wanted.dial_lengths]
    turned = sorted({rsp.length: rsp for rsp in (*turned, usual)}.values(), key=lambda r: r.length)
    turned += [replace(usual, scale=scale) for scale in wanted.dial_scales if scale != usual.scale]
    turned += [replace(usual, law=law) for law in wanted.dial_laws if law != usual.law]
    return [
        Analysis(
            "dials",
            "Length, scale and law as dials",
            "rsp_rl.analysis.dials_table",
            _greedy_and_sampled(protocol, turned, wanted.dial_samples),
            remark="One dial at a time, the others at the protocol's.",
        )
    ]


def mismatch(wanted: Wanted) -> list[Analysis]:
    """Section 4.2's format mismatch: templates that are not the model's own, with and without."""
    own = wanted.asking(wanted.benchmarks(("math500",)), paper.MECHANISM_LENGTH)
    reads: list[Evaluation] = []
    for template in (own.template, *wanted.other_templates):
        protocol = replace(own, template=template)
        positions = [replace(own.rsp, position=position) for position in ("prefix", "suffix")]
        reads += _greedy_and_sampled(protocol, positions, wanted.dial_samples)
    return [
        Analysis(
            "format",
            "Table 2's format mismatch: another template than the model's own",
            "rsp_rl.analysis.dials_table",
            tuple(reads),
            options={"name": "format"},
            remark="The paper gives base models a chat template; here the model gets others' ones.",
        )
    ]


def thinking(wanted: Wanted) -> list[Analysis]:
    """Continuous tokens as two papers had them, beside ordinary ones of the same model."""
    own = wanted.asking(wanted.benchmarks(("math500", "aime24")), 1)
    plain = replace(own, law=None, rsp=replace(own.rsp, length=0))
    greedy = _sampled(plain, 1, temperature=0.0, top_p=1.0, top_k=0)
    sampled = _sampled(plain, wanted.thought_samples, **_THOUGHT_SAMPLING)
    conditions = {"sampled": sampled, "greedy": greedy}
    for name in THOUGHT_LAWS:
        law = law_from_settings(name, {})
        # How thoughts end is the model's: as the protocol has it, if it has a law.
        phases = replace(own.law, law=law) if own.law else ThoughtSettings(law)
        base = _sampled(plain, 1, **_THOUGHT_SAMPLING) if law.deterministic else sampled
        conditions[name] = replace(base, law=phases)
    reads = tuple(
        Evaluation(name, replace(protocol, name=name)) for name, protocol in conditions.items()
    )
    return [
        Analysis(
            "laws",
            "Soft Thinking and its randomised forms: accuracy and length",
            "rsp_rl.analysis.law_table",
            reads,
            remark="Soft thinking draws nothing while it thinks and has one answer a problem, as "
            "has greedy. The papers judge by rule and then by a language model, here it is by "
            "rule.",
        ),
        Analysis(
            "thoughts",
            "Single-threaded reasoners: what a model makes of a mixture",
            "rsp_rl.analysis.thoughts",
            reads,
        ),
    ]


def _sampled(protocol: Protocol, samples: int, **sampling: float) -> Protocol:
    """With other sampling on every benchmark."""
    plans = tuple(
        replace(plan, samples=samples, **sampling)  # type: ignore[arg-type]
        for plan in protocol.benchmarks
    )
    return replace(protocol, benchmarks=plans)


def _greedy_and_sampled(
    protocol: Protocol, turned: Iterable[RspOptions], samples: int
) -> tuple[Evaluation, ...]:
    """The baseline, then each way of soft prompts; greedy answers, and some at temperature 1."""
    made = []
    for rsp in (replace(protocol.rsp, length=0), *turned):
        for kind, number, temperature in (("greedy", 1, 0.0), ("sampled", samples, 1.0)):
            plans = tuple(
                replace(plan, samples=number, temperature=temperature, top_p=1.0, top_k=0)
                for plan in protocol.benchmarks
            )
            asked = replace(protocol, rsp=rsp, benchmarks=plans)
            words = re.sub(r"[^A-Za-z0-9.]+", "-", dial_name(asked, template=True))
            label = f"{words}_{kind}"
            made.append(Evaluation(label, replace(asked, name=label)))
    return tuple(made)


#: Laws of section "thoughts", at their defaults: those of the papers' scripts.
THOUGHT_LAWS = ("soft_thinking", "dirichlet", "gumbel")

#: How both papers sample tokens and answers.
_THOUGHT_SAMPLING = {"temperature": 0.6, "top_p": 0.95, "top_k": 30}

#: What makes the plan of each section.
SECTIONS: dict[str, Callable[[Wanted], list[Analysis]]] = {
    "4.2": accuracy,
    "4.3": mechanism,
    "4.4": diversity,
    "4.5": training,
    "dials": dials,
    "format": mismatch,
    "thoughts": thinking,
}
