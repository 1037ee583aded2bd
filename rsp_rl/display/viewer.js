// What pages with a viewer share: a list, the chosen entry beside it, and how texts are shown. Texts
// are written by a model and not to be trusted: they reach the page as text nodes only, never as
// markup. A page's own script goes on below.
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

// A text of which the middle may be left out.
function ends({ head, left_out: leftOut, tail }) {
  const nodes = typeset(head);
  if (!leftOut) return nodes;
  const gap = element("span", "gap", `${leftOut.toLocaleString("en")} characters left out`);
  return [...nodes, gap, ...typeset(tail)];
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
  const mixed = tokens.some((parts) => parts.some(([, weight]) => weight !== null));
  const key = mixed
    ? "Line: the token's weight, from 80% solid, from 60% dashed, else dotted; forced ones are marked. " +
      "Point at one, or move to it by Tab, for its five heaviest tokens."
    : "None of them is a mixture of tokens.";
  const made = element("details", "thinking", head, element("div", "quiet", key), row, mixture);
  made.open = positions > 0;
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

// The list and what is chosen of it. A page says how its entries look: `noun` in the plural, `row` the
// nodes of an entry's row, `detail` what is shown of it, `address` its fragment in the page's
// address, `matches` a predicate of what the filters are set to; and if it likes `compare`, an order
// of entries, and `search`, what is done in place of `filter` while somebody types.
class Viewer {
  constructor(page) {
    this.page = page;
    this.entries = [];
    this.listed = []; // what the filters leave
    this.rows = 0; // of these, how many are in the list
    this.chosen = null;
    this.keys = {
      "/": () => byId("search").focus(),
      j: () => this.moveBy(1),
      k: () => this.moveBy(-1),
    };
  }

  filter() {
    this.listed = this.entries.filter(this.page.matches());
    if (this.page.compare) this.listed.sort(this.page.compare);
    const counts = [this.listed.length, this.entries.length];
    const [left, all] = counts.map((count) => count.toLocaleString("en"));
    byId("count").textContent = `${left} of ${all} ${this.page.noun}`;
    byId("list").replaceChildren();
    this.rows = 0;
    this.addRows();
  }

  addRows() {
    const list = byId("list");
    for (const entry of this.listed.slice(this.rows, this.rows + PAGE)) {
      const row = element("button", "", ...this.page.row(entry));
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", entry === this.chosen);
      row.addEventListener("click", () => this.visit(entry));
      list.append(row);
    }
    this.rows = Math.min(this.rows + PAGE, this.listed.length);
  }

  moveBy(difference) {
    const next = this.listed[this.listed.indexOf(this.chosen) + difference];
    if (next) this.visit(next);
  }

  // An entry that the reader chose gets an address, so that it can be pointed at.
  visit(entry) {
    history.replaceState(null, "", this.page.address(entry));
    return this.choose(entry);
  }

  async choose(entry) {
    this.chosen = entry;
    while (this.listed.indexOf(entry) >= this.rows) this.addRows();
    for (const [number, row] of [...byId("list").children].entries()) {
      row.setAttribute("aria-selected", this.listed[number] === entry);
      if (this.listed[number] === entry) row.scrollIntoView({ block: "nearest" });
    }
    const outputs = entry.outputs ? await unpack(byId(`outputs-${entry.outputs}`)) : null;
    if (this.chosen === entry) this.page.detail(entry, outputs);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select")) {
      if (event.key !== "Escape") return;
      event.preventDefault(); // browsers would empty the box
      event.target.blur();
    }
    if (!Object.hasOwn(this.keys, event.key)) return;
    event.preventDefault();
    this.keys[event.key]();
  }

  // The page's index, or null in a browser that cannot unpack it.
  async index() {
    if ("DecompressionStream" in window) return unpack(byId("index"));
    byId("detail").textContent = "This browser is too old for the viewer (it needs DecompressionStream).";
    return null;
  }

  // Fill the list and choose what the address names, else the first entry that has outputs.
  async start(entries, section, filters) {
    this.entries = entries;
    this.filter();
    for (const id of filters) byId(id).addEventListener("change", () => this.filter());
    const search = this.page.search ?? (() => this.filter());
    byId("search").addEventListener("input", () => void search());
    byId("list").addEventListener("scroll", ({ target }) => {
      if (target.scrollTop + target.clientHeight > target.scrollHeight - 400) this.addRows();
    });
    document.addEventListener("keydown", (event) => this.onKey(event));
    const linked = this.entries.find((entry) => this.page.address(entry) === location.hash);
    if (linked) byId(section).scrollIntoView();
    const first = linked ?? this.listed.find((entry) => entry.outputs);
    if (first) await this.choose(first);
  }
}

// Words of the search box, all of which an entry must have.
const searched = () => byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);

function switchButton(label, pressed, change) {
  const button = element("button", "", String(label));
  button.setAttribute("aria-pressed", pressed);
  button.addEventListener("click", change);
  return button;
}

