// Viewer of problems. Outputs are written by a model and not to be trusted: they reach the page as
// text nodes only, never as markup.
"use strict";

const TAIL_THOUGHTS = 40; // shown after those that are left out
const PAGE = 200; // rows added to the list at a time
const byId = (id) => document.getElementById(id);

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

async function unpack(block) {
  const bytes = Uint8Array.from(atob(block.textContent), (char) => char.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// As pandoc: no space inside the dollars and no digit after them, else they are money.
const MATH = new RegExp(
  [
    /\$\$[^]+?\$\$/,
    /\$(?=\S)[^$\n]*[^$\s]\$(?!\d)/,
    /\\\[[^]+?\\\]/,
    /\\\([^]+?\\\)/,
    /\\begin\{(\w+\*?)\}[^]+?\\end\{\1\}/,
  ]
    .map((pattern) => pattern.source)
    .join("|"),
  "g",
);
const BOX = /\\boxed\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}/g;

// Split a text at the matches of a pattern; `inside` and `outside` make the nodes.
function split(text, pattern, inside, outside) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    nodes.push(...outside(text.slice(end, match.index)), ...inside(match[0]));
    end = match.index + match[0].length;
  }
  return [...nodes, ...outside(text.slice(end))];
}

// LaTeX stays as it was written, which is what was graded; math and boxes are only set apart.
function typeset(text) {
  const plain = (part) => (part ? [document.createTextNode(part)] : []);
  const boxes = (part) => split(part, BOX, (box) => [element("span", "box", box)], plain);
  return split(text, MATH, (math) => [element("span", "math", ...boxes(math))], boxes);
}

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
let problems = [];
let listed = []; // what the filters leave
let rows = 0; // of these, how many are in the list
let chosen = null;
const hidden = new Set(); // steps whose column is folded away
let sampleNumber = 0;

function filter() {
  const benchmark = byId("benchmark").value;
  const shown = SHOWN[byId("show").value];
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const withOutputs = byId("with-outputs").checked;
  listed = problems.filter(
    (p) =>
      (!benchmark || p.benchmark === benchmark) &&
      (!withOutputs || p.outputs) &&
      shown(p) &&
      words.every((word) => p.searched.includes(word)),
  );
  byId("count").textContent = `${listed.length} of ${problems.length} problems`;
  byId("list").replaceChildren();
  rows = 0;
  addRows();
}

function addRows() {
  const list = byId("list");
  for (const problem of listed.slice(rows, rows + PAGE)) {
    const name = element("span", "name", `${problem.benchmark} · ${problem.id}`);
    if (!problem.outputs) name.append(element("span", "empty", "no outputs here"));
    const row = element("button", "", name, marks(problem));
    row.append(element("div", "question", problem.question));
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", problem === chosen);
    row.addEventListener("click", () => visit(problem));
    list.append(row);
  }
  rows = Math.min(rows + PAGE, listed.length);
}

function moveBy(difference) {
  const next = listed[listed.indexOf(chosen) + difference];
  if (!next) return;
  visit(next);
}

// A problem that the reader chose gets an address, so that it can be pointed at.
function visit(problem) {
  history.replaceState(null, "", addressOf(problem));
  choose(problem);
}

function addressOf(problem) {
  return `#${encodeURIComponent(`${problem.benchmark}/${problem.id}`)}`;
}

async function choose(problem) {
  chosen = problem;
  while (listed.indexOf(problem) >= rows) addRows();
  for (const [number, row] of [...byId("list").children].entries()) {
    row.setAttribute("aria-selected", listed[number] === problem);
    if (listed[number] === problem) row.scrollIntoView({ block: "nearest" });
  }
  const outputs = problem.outputs ? await unpack(byId(`outputs-${problem.outputs}`)) : null;
  if (chosen === problem) show(problem, outputs);
}

function show(problem, outputs) {
  const detail = byId("detail");
  detail.replaceChildren(
    element("h3", "", `${problem.benchmark} · ${problem.id}`),
    element("div", "question-text text", ...typeset(problem.question)),
    ...(problem.steps?.length ? [goldSteps(problem.steps)] : []),
    element("div", "", "Gold answer: ", element("span", "math", problem.gold || "(none)")),
  );
  if (!outputs) {
    const files = `step_*/${problem.benchmark}.samples.jsonl`;
    detail.append(
      element("p", "quiet", `The outputs of this problem are not in this page; they are in ${files}.`),
    );
    return;
  }
  const numbers = [...new Set(outputs.flat().map((sample) => sample.number))].sort((a, b) => a - b);
  if (!numbers.includes(sampleNumber)) sampleNumber = numbers[0];
  const bar = element("div", "steps", "Steps:");
  steps.forEach((step) => {
    const toggle = () => void (hidden.has(step) ? hidden.delete(step) : hidden.add(step));
    bar.append(switchButton(step, !hidden.has(step), toggle, problem, outputs));
  });
  if (numbers.length > 1) {
    bar.append("Sample:");
    for (const number of numbers) {
      const select = () => void (sampleNumber = number);
      bar.append(switchButton(number, number === sampleNumber, select, problem, outputs));
    }
  }
  const columns = element("div", "columns");
  outputs.forEach((samples, position) => {
    if (hidden.has(steps[position])) return;
    const sample = samples.find((candidate) => candidate.number === sampleNumber);
    columns.append(column(steps[position], sample, problem, problem.right[position]));
  });
  detail.append(bar, columns);
}

function goldSteps(steps) {
  const list = element("ol", "gold-steps", ...steps.map((step) => element("li", "text", ...typeset(step))));
  return element("div", "", "Gold steps:", list);
}

function switchButton(label, pressed, change, problem, outputs) {
  const button = element("button", "", String(label));
  button.setAttribute("aria-pressed", pressed);
  button.addEventListener("click", () => {
    change();
    show(problem, outputs);
  });
  return button;
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
  const output = element("div", "output text", ...typeset(sample.head));
  if (sample.left_out) {
    const count = sample.left_out.toLocaleString("en");
    output.append(element("span", "gap", `${count} characters left out`), ...typeset(sample.tail));
  }
  return element("div", `column${sample.correct ? " right" : ""}`, head, ...before, output);
}

// Every thought as the token that it emitted, underlined by how much of the input that token was; the
// one that is pointed at with its tokens and their weights below, at first the most mixed one.
function thoughts({ law, positions, left_out: leftOut, at, kind, tokens }) {
  const count = positions.toLocaleString("en");
  const mixture = element("div", "mixture");
  const row = element("div", "thoughts text");
  tokens.forEach((parts, number) => {
    if (leftOut && number === tokens.length - TAIL_THOUGHTS) {
      row.append(element("span", "gap", `${leftOut.toLocaleString("en")} thoughts left out`));
    }
    const [text, weight] = parts[0] ?? ["", null];
    const share = weight === null ? "plain" : `share${Math.min(4, Math.floor(weight * 5))}`;
    const one = element("span", `thought ${kind[number]} ${share}`, visible(text));
    one.title = parts.map(([token, w]) => `${visible(token)} ${percent(w)}`.trim()).join("\n");
    one.tabIndex = 0;
    const tell = () => mixture.replaceChildren(...told(at[number], kind[number], parts));
    one.addEventListener("pointerenter", tell);
    one.addEventListener("focus", tell);
    row.append(one);
  });
  const first = (parts) => parts[0]?.[1] ?? 2; // what is no mixture comes last
  const most = tokens.reduce((best, parts, n) => (first(parts) < first(tokens[best]) ? n : best), 0);
  if (tokens.length) mixture.append(...told(at[most], kind[most], tokens[most]));
  const head = element("summary", "", `${count} positions of law ${law}`);
  const key =
    "Line: the token's weight, from 80% solid, from 60% dashed, else dotted; forced ones are marked. " +
    "Point at one, or move to it by Tab, for its five heaviest tokens.";
  const made = element("details", "thinking", head, element("div", "quiet", key), row, mixture);
  made.open = true;
  return made;
}

function told(at, kind, parts) {
  const rows = parts.map(([text, weight]) => {
    const bar = element("meter");
    bar.value = weight ?? 0;
    const share = weight === null ? [] : [bar, element("span", "", percent(weight))];
    return element("div", "part", element("code", "", visible(text)), ...share);
  });
  return [element("div", "", `position ${at}, ${kind.replace("_", " + ")}`), ...rows];
}

const percent = (weight) => (weight === null ? "" : `${(100 * weight).toFixed(1)}%`);

// A token that is nothing but space must be seen.
function visible(text) {
  return text.replaceAll("\n", "⏎").replace(/^ +$/, (spaces) => "␣".repeat(spaces.length)) || "∅";
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select");
  if (event.key === "/" && !typing) {
    event.preventDefault();
    byId("search").focus();
  } else if (event.key === "j" && !typing) moveBy(1);
  else if (event.key === "k" && !typing) moveBy(-1);
}

async function start() {
  if (!("DecompressionStream" in window)) {
    byId("detail").textContent = "This browser is too old for the viewer (it needs DecompressionStream).";
    return;
  }
  const index = await unpack(byId("index"));
  steps = index.steps;
  byId("benchmark").append(new Option("all", ""));
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
  filter();
  for (const id of ["benchmark", "show", "with-outputs"]) byId(id).addEventListener("change", filter);
  byId("search").addEventListener("input", filter);
  byId("list").addEventListener("scroll", ({ target }) => {
    if (target.scrollTop + target.clientHeight > target.scrollHeight - 400) addRows();
  });
  document.addEventListener("keydown", onKey);
  const linked = problems.find((problem) => addressOf(problem) === location.hash);
  if (linked) byId("problems").scrollIntoView();
  const first = linked ?? listed.find((problem) => problem.outputs);
  if (first) await choose(first);
}

start();
