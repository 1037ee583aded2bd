// Viewer of an evaluation's problems; `viewer.js` stands above.
function markOf(right, samples) {
  if (right === null) return "none";
  return right === samples ? "right" : right ? "part" : "wrong";
}

function marks(problem) {
  const row = element("span", "marks");
  problem.right.forEach((right, step) => {
    const mark = element("span", `mark ${markOf(right, problem.samples)}`);
    const score = right === null ? "not evaluated" : `${right} of ${problem.samples} right`;
    mark.title = `step ${steps[step]}: ${score}`;
    row.append(mark);
  });
  return row;
}

const SHOWN = {
  all: () => true,
  changed: (p) => new Set(p.known).size > 1,
  gained: (p) => p.known.at(-1) > p.known[0],
  lost: (p) => p.known.at(-1) < p.known[0],
  wrong: (p) => p.known.at(-1) < p.samples,
  never: (p) => p.known.every((right) => right === 0),
  cut: (p) => p.cut_off.some(Boolean),
};

let steps = [];
const hidden = new Set(); // steps whose column is folded away
let sampleNumber = 0;

function matches() {
  const benchmark = byId("benchmark").value;
  const shown = SHOWN[byId("show").value];
  const words = searched();
  const withOutputs = byId("with-outputs").checked;
  return (p) =>
    (!benchmark || p.benchmark === benchmark) &&
    (!withOutputs || p.outputs) &&
    shown(p) &&
    words.every((word) => p.searched.includes(word));
}

function row(problem) {
  const name = element("span", "name", `${problem.benchmark} · ${problem.id}`);
  if (!problem.outputs) name.append(element("span", "empty", "no outputs here"));
  return [name, marks(problem), element("div", "question", problem.question)];
}

function address(problem) {
  return `#${encodeURIComponent(`${problem.benchmark}/${problem.id}`)}`;
}

function detail(problem, outputs) {
  const shown = byId("detail");
  shown.replaceChildren(
    element("h3", "", `${problem.benchmark} · ${problem.id}`),
    element("div", "question-text text", ...typeset(problem.question)),
    ...(problem.steps?.length ? [goldSteps(problem.steps)] : []),
    element("div", "", "Gold answer: ", element("span", "math", problem.gold || "(none)")),
  );
  if (!outputs) {
    const files = `step_*/${problem.benchmark}.samples.jsonl`;
    shown.append(
      element("p", "quiet", `The outputs of this problem are not in this page; they are in ${files}.`),
    );
    return;
  }
  const numbers = [...new Set(outputs.flat().map((sample) => sample.number))].sort((a, b) => a - b);
  if (!numbers.includes(sampleNumber)) sampleNumber = numbers[0];
  const again = (change) => () => {
    change();
    detail(problem, outputs);
  };
  const bar = element("div", "steps", "Steps:");
  steps.forEach((step) => {
    const toggle = () => void (hidden.has(step) ? hidden.delete(step) : hidden.add(step));
    bar.append(switchButton(step, !hidden.has(step), again(toggle)));
  });
  if (numbers.length > 1) {
    bar.append("Sample:");
    for (const number of numbers) {
      const select = () => void (sampleNumber = number);
      bar.append(switchButton(number, number === sampleNumber, again(select)));
    }
  }
  const columns = element("div", "columns");
  outputs.forEach((samples, position) => {
    if (hidden.has(steps[position])) return;
    const sample = samples.find((candidate) => candidate.number === sampleNumber);
    columns.append(column(steps[position], sample, problem, problem.right[position]));
  });
  shown.append(bar, columns);
}

function goldSteps(steps) {
  const list = element("ol", "gold-steps", ...steps.map((step) => element("li", "text", ...typeset(step))));
  return element("div", "", "Gold steps:", list);
}

function column(step, sample, problem, right) {
  const head = element("header", "", element("div", "verdict", `step ${step}`));
  if (!sample) {
    head.append(element("div", "facts", "not evaluated"));
    return element("div", "column absent", head);
  }
  head.firstChild.append(element("b", "", sample.correct ? "✓ right" : "✗ wrong"));
  const answer = element("div", "facts", "answer ", element("code", "", sample.extracted || "–"));
  const how = sample.stage === "none" ? "" : `, by ${sample.stage}`;
  answer.append(` (${sample.extraction_step}${how})`);
  const score = problem.samples > 1 ? ` · ${right} of ${problem.samples} samples right` : "";
  const facts = element("div", "facts", `${sample.tokens.toLocaleString("en")} tokens${score}`);
  head.append(answer, facts);
  if (sample.marks.length) {
    const badges = sample.marks.map((mark) => element("span", "badge", mark));
    head.append(element("div", "facts", ...badges));
  }
  const before = sample.thoughts ? [thoughts(sample.thoughts)] : [];
  const output = element("div", "output text", ...ends(sample));
  return element("div", `column${sample.correct ? " right" : ""}`, head, ...before, output);
}

const viewer = new Viewer({ noun: "problems", row, detail, address, matches });

async function start() {
  const index = await viewer.index();
  if (!index) return;
  steps = index.steps;
  byId("benchmark").append(new Option("all", ""));
  const problems = [];
  for (const { name, samples, problems: entries } of index.benchmarks) {
    byId("benchmark").append(new Option(name, name));
    for (const entry of entries) {
      problems.push({
        ...entry,
        benchmark: name,
        samples,
        known: entry.right.filter((right) => right !== null),
        searched: `${name} ${entry.id} ${entry.question} ${entry.gold}`.toLowerCase(),
      });
    }
  }
  await viewer.start(problems, "problems", ["benchmark", "show", "with-outputs"]);
}

start();
