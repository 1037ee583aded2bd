// Viewer of a run's rollouts, a group an entry; `viewer.js` stands above.
const KINDS = {
  all: () => true,
  mixed: (g) => g.right && g.wrong,
  wrong: (g) => g.wrong === g.rollouts,
  right: (g) => g.right === g.rollouts,
  "some-right": (g) => g.right,
  "some-wrong": (g) => g.wrong,
};
const ORDERS = {
  steps: () => 0, // as they come
  gap: (a, b) => size(b.largest_gap) - size(a.largest_gap),
  long: (a, b) => b.longest - a.longest,
};

let texts = null; // by group, what is searched
let reading = null; // of them, once somebody searches
let verdict = "all"; // of the answers that are shown

const count = (number) => number.toLocaleString("en");
// A number that is not finite comes as a word: it is the worst there is.
const size = (number) => (typeof number === "string" ? Infinity : number ?? 0);
// Three digits, of large numbers all before the point; what is no number as it is.
function short(number) {
  if (typeof number !== "number") return number ?? "–";
  return String(Math.abs(number) < 1000 ? Number(number.toPrecision(3)) : Math.round(number));
}

function kindOf(group) {
  if (!group.right && !group.wrong) return "none";
  return group.right === group.rollouts ? "right" : group.right ? "part" : "wrong";
}

function matches(step = byId("step").value) {
  const kind = KINDS[byId("show").value];
  const [shortest, longest] = ["shortest", "longest"].map((id) => byId(id).value);
  const words = searched();
  return (group) =>
    (!step || group.step.step === Number(step)) &&
    kind(group) &&
    (!shortest || group.longest >= Number(shortest)) &&
    (!longest || group.longest <= Number(longest)) &&
    words.every((word) => texts?.get(group).includes(word));
}

function row(group) {
  const right = group.right + group.wrong ? `${group.right} of ${group.rollouts} right` : "";
  const name = element("span", "name", `step ${group.step.step} · ${group.number}`);
  name.append(element("span", "", right || `${group.rollouts} rollouts`));
  const mark = element("span", `mark ${kindOf(group)}`);
  const question = element("div", "question", mark, ` ${group.question}`);
  return [name, question];
}

const address = (group) => `#step-${group.step.step}-${group.number}`;

function detail(group, outputs) {
  const shown = byId("detail");
  if (!outputs) return;
  tellStep(group.step);
  const gold = element("span", "math", ...ends(outputs.gold));
  shown.replaceChildren(
    element("h3", "", `Step ${group.step.step}, group ${group.number}`),
    element("div", "quiet", facts(group).join(" · ")),
    ...outputs.prompts.flatMap(prompt),
    element("div", "", "Gold answer: ", gold),
  );
  const bar = element("div", "steps", "Answers:");
  const names = { all: "all", right: "right", wrong: "wrong" };
  for (const [key, name] of Object.entries(names)) {
    bar.append(switchButton(name, key === verdict, () => only(key)));
  }
  const columns = element("div", "columns");
  const wanted = { all: () => true, right: (one) => one.right, wrong: (one) => one.right === false };
  const answers = outputs.rollouts.filter(wanted[verdict]);
  columns.append(...answers.map(column));
  if (!answers.length) columns.append(element("p", "quiet", `No answer here is ${verdict}.`));
  shown.append(bar, columns);
}

function facts(group) {
  const told = [`${group.shown} of ${count(group.rollouts)} rollouts shown`];
  if (group.right + group.wrong) told.push(`${group.right} right, ${group.wrong} wrong`);
  told.push(`mean reward ${short(group.reward)}`);
  told.push(
    group.tokens === null
      ? `${short(group.characters)} characters on average`
      : `${short(group.tokens)} tokens on average, at most ${count(group.tokens_max)}`,
  );
  if (group.largest_gap !== null) told.push(`largest gap ${short(group.largest_gap)} nats`);
  return told;
}

// A prompt with its soft prompt where it stands in the text.
function prompt({ before, after, length, start, placed, added, of, all }) {
  const text = element("div", "question-text text", ...ends(before));
  if (placed) text.append(element("span", "soft-prompt", `soft prompt, L = ${length}`), ...ends(after));
  const told = [];
  if (!all) told.push(`Rollouts ${of.join(", ")}:`);
  if (length === 0) told.push(added ? "no noise on the question." : "no soft prompt, L = 0.");
  if (length && added) {
    told.push(`Noise is added to the embeddings of the question, tokens ${start} to ${start + length - 1}.`);
  } else if (length && !placed) {
    told.push(
      `A soft prompt, L = ${length}, begins at token ${start}; its place in this text is not on record.`,
    );
  }
  return told.length ? [element("div", "quiet", told.join(" ")), text] : [text];
}

function column(one) {
  const said = { true: "✓ right", false: "✗ wrong", null: "not said" }[one.right];
  const head = element("header", "", element("div", "verdict", `rollout ${one.name}`, element("b", "", said)));
  const answer = element("div", "facts", `reward ${short(one.reward)}`);
  if (one.extraction_step !== null || one.extracted !== null) {
    answer.append(" · answer ", element("code", "", one.extracted || "–"));
    const how = [one.extraction_step, one.stage].filter((name) => name && name !== "none");
    if (how.length) answer.append(` (${how.join(", by ")})`);
  }
  const length = one.tokens === null ? `${count(one.characters)} characters` : `${count(one.tokens)} tokens`;
  const gap = one.gap_mean === null ? "" : ` · gap ${short(one.gap_mean)}, at most ${short(one.gap_max)} nats`;
  head.append(answer, element("div", "facts", length + gap));
  if (one.marks.length) {
    head.append(element("div", "facts", ...one.marks.map((mark) => element("span", "badge", mark))));
  }
  const before = [];
  if (typeof one.thoughts === "number") {
    const many = `${count(one.thoughts)} thoughts, which this step's file has no room for`;
    before.push(element("div", "thinking quiet", many));
  } else if (one.thoughts) before.push(thoughts(one.thoughts));
  const side = { true: " right", false: "", null: " unsaid" }[one.right];
  return element("div", `column${side}`, head, ...before, element("div", "output text", ...ends(one.output)));
}

function only(kind) {
  verdict = kind;
  if (viewer.chosen) viewer.choose(viewer.chosen);
}

// What is shown of a step, in words and in the table.
function tellStep(step) {
  const all = step.shown === step.rollouts;
  byId("of-step").textContent =
    `Step ${step.step}: ` +
    (all
      ? `all ${count(step.rollouts)} rollouts of this step are shown.`
      : `${count(step.shown)} of ${count(step.rollouts)} rollouts of this step are shown, ` +
        `${count(step.shown_groups)} of ${count(step.groups)} groups.`) +
    (step.gap_mean === null ? "" : ` The step's mean gap is ${short(step.gap_mean)} nats.`);
  for (const line of document.querySelectorAll(".steps-table tbody tr")) {
    line.classList.toggle("chosen", line.firstChild.textContent === String(step.step));
  }
}

// The next step, or the one before, that has groups which the filters leave; its first group.
function moveByStep(difference) {
  const select = byId("step");
  const now = Number(select.value || (viewer.chosen?.step.step ?? -1));
  const numbers = viewer.entries.filter(matches("")).map((group) => group.step.step);
  const next = difference > 0 ? numbers.find((n) => n > now) : numbers.findLast((n) => n < now);
  if (next === undefined) return;
  if (select.value) {
    select.value = String(next);
    viewer.filter();
  }
  viewer.visit(viewer.listed.find((group) => group.step.step === next));
}

// What is searched of every group; read from the page once something is searched.
async function readTexts() {
  byId("count").textContent = "reading all answers …";
  const found = new Map();
  for (const group of viewer.entries) {
    const outputs = await unpack(byId(`outputs-${group.outputs}`));
    const parts = [outputs.gold, ...outputs.prompts.flatMap((p) => [p.before, p.after])];
    parts.push(...outputs.rollouts.map((one) => one.output));
    const words = parts.flatMap((part) => [part.head, part.tail]);
    words.push(...outputs.rollouts.map((one) => one.extracted ?? ""));
    found.set(group, words.join("\n").toLowerCase());
  }
  return found;
}

async function search() {
  if (searched().length) texts = await (reading ??= readTexts());
  viewer.filter();
}

const viewer = new Viewer({
  noun: "groups",
  row,
  detail,
  address,
  matches,
  compare: (a, b) => ORDERS[byId("order").value](a, b),
  search,
});

async function start() {
  const index = await viewer.index();
  if (!index) return;
  const { steps } = index;
  const groups = [];
  const inTokens = steps.every((step) => step.list.every((group) => group.tokens_max !== null));
  byId("unit").textContent = inTokens ? "tokens" : "characters";
  for (const step of steps) {
    if (step.list.length) byId("step").append(new Option(step.step, step.step));
    step.list.forEach((group, number) => {
      const longest = inTokens ? group.tokens_max : group.characters_max;
      groups.push({ ...group, step, number, longest });
    });
  }
  Object.assign(viewer.keys, {
    l: () => moveByStep(1),
    h: () => moveByStep(-1),
    r: () => only("right"),
    w: () => only("wrong"),
    a: () => only("all"),
  });
  // A step in the table is a link to its first group.
  const follow = () => {
    const of = (group) => [address(group), `#step-${group.step.step}`];
    const linked = groups.find((group) => of(group).includes(location.hash));
    if (!linked) return;
    byId("step").value = "";
    viewer.filter();
    viewer.choose(linked);
    byId("rollouts").scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  await viewer.start(groups, "rollouts", ["step", "show", "shortest", "longest", "order"]);
  follow(); // the viewer knows addresses of groups alone
}

start();
