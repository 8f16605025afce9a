// What one does: choose a unit, see what hangs together with it light up, read its calculation.

const CARDS = 6, ROWS = 14, WIDEST = 7, STEP_MS = 130;

// ---- what is chosen

const state = { place: null, unit: null, lit: null, slopes: null, revealed: 0, past: [], peek: null };
const views = [];
const viewOf = (place) => views.find((view) => view.place === place || view.stage?.calls.includes(place));
let timer = null;

function select(place, unit, remember = true, scroll = true) {
  if (remember && state.place !== null) state.past.push([state.place, state.unit]);
  Object.assign(state, { place, unit, lit: reached(place, unit), slopes: place === IMAGE ? null : slopes(place, unit), peek: null });
  for (const view of views) {
    if (view.place === place) {
      view.channel = unit[0];
      view.cursor = unit;
    } else if (view.place < place) followStrongest(view);
  }
  document.getElementById("where").innerHTML =
    `<b>${escaped(nameOf(place))}</b>, ${escaped(spoken(place, unit))}: <b class="n">${valued(place, unit)}</b>`;
  writeNumbers();
  if (scroll) viewOf(place).element.scrollIntoView({ inline: "nearest", block: "nearest", behavior: "instant" });
  reveal();
  document.getElementById("said").textContent = `${nameOf(place)}, ${spoken(place, unit)}, ${valued(place, unit)}`;
}
/** Where a unit lies, and in the model's output of which class it is. */
const classOf = (place, unit) => (data.classes && place === data.last ? data.classes[unit[0]] : null);
function spoken(place, unit) {
  const name = classOf(place, unit);
  return placed(unit, shapeOf(place)) + (name === null ? "" : ` (${name})`);
}
const escaped = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
const nameOf = (place) => (place === IMAGE ? "image" : `layer ${viewOf(place)?.stage.label ?? labelOf(place)}`);

/** Show the channel, and put the cursor on the unit, that has the largest part in what is chosen. */
function followStrongest(view) {
  const lit = state.lit.get(view.place), slope = state.slopes?.get(view.place), values = view.values;
  if (!lit.some(Boolean)) return;
  let best = -1, most = -1;
  for (let at = 0; at < lit.length; at++) {
    if (!lit[at]) continue;
    const part = slope ? Math.abs(slope[at] * values[at]) : 0;
    if (part > most) [best, most] = [at, part];
  }
  view.cursor = unitAt(view.shape, best);
  if (!view.plane.single) view.channel = view.cursor[0];
}

/** Light the chosen unit, then layer by layer what made it. */
function reveal() {
  clearTimeout(timer);
  const last = views.findIndex((view) => view.place === state.place);
  // Whoever asks the system for less motion gets the last picture at once.
  state.revealed = matchMedia("(prefers-reduced-motion: reduce)").matches ? last : 0;
  const step = () => {
    draw();
    document.body.dataset.settled = state.revealed >= last;
    if (state.revealed < last) timer = setTimeout(() => { state.revealed++; step(); }, STEP_MS);
  };
  step();
}

function draw() {
  const last = views.findIndex((view) => view.place === state.place);
  views.forEach((view, i) => {
    const lit = (state.peek ?? state).lit.get(view.place), shown = state.peek !== null || i >= last - state.revealed;
    view.draw(lit, view.place === state.place && !state.peek ? state.unit : null, shown);
  });
  views[0].drawEffects(state.revealed >= last ? state.slopes?.get(IMAGE) ?? null : null);
  link();
}

/** Hovering lights another unit for as long as it lasts. */
function preview(view, unit, event) {
  const tip = document.querySelector(".tip");
  tip.textContent = unit ? `${placed(unit, view.shape)}: ${valued(view.place, unit)}` : "";
  if (unit) {
    const right = event.clientX + 14 + tip.offsetWidth > innerWidth;
    tip.style.left = `${right ? event.clientX - 14 - tip.offsetWidth : event.clientX + 14}px`;
    tip.style.top = `${event.clientY + 16}px`;
  }
  // While the layers still light up one by one, a preview would fight with them over the same pictures.
  const key = unit ? `${view.place}:${unit}` : null;
  if (key === (state.peek?.key ?? null) || document.body.dataset.settled === "false") return;
  state.peek = unit ? { key, place: view.place, lit: reached(view.place, unit) } : null;
  // A mouse moves more often than the screen is drawn: one drawing a frame is enough.
  if (!state.peekDue) requestAnimationFrame(() => { state.peekDue = false; draw(); });
  state.peekDue = true;
}

/** Draw the window of each column as a beam that ends in what it made in the next. */
function link() {
  const first = views.findIndex((view) => view.place === state.place) - state.revealed;
  const strip = document.getElementById("strip"), svg = strip.querySelector(".links");
  const origin = strip.getBoundingClientRect(), lit = (state.peek ?? state).lit, upTo = (state.peek ?? state).place;
  svg.setAttribute("width", strip.scrollWidth);
  svg.setAttribute("height", 1);
  const paths = [];
  views.forEach((view, i) => {
    const next = views[i + 1];
    if (!next || next.place > upTo || i < first || !feeds(view, next)) return;
    const [a, b] = [extent(view, lit, origin, strip), extent(next, lit, origin, strip)];
    if (a && b && b.left >= a.right) paths.push(`<path d="M${a.right} ${a.top}L${b.left} ${b.top}L${b.left} ${b.bottom}L${a.right} ${a.bottom}"/>`);
  });
  svg.innerHTML = paths.join("");
}
function feeds(view, next) {
  let sources = calls[next.stage.calls[0]].inputs.map((join) => join.source);
  sources = sources.flatMap((n) => (n !== IMAGE && calls[n].connection.reshape ? calls[n].inputs.map((j) => j.source) : [n]));
  return sources.includes(view.place);
}
function extent(view, lit, origin, strip) {
  const { plane, scale } = view, marks = lit.get(view.place), box = view.canvas.getBoundingClientRect();
  let [top, left, bottom, right] = [Infinity, Infinity, -1, -1];
  for (let row = 0; row < plane.high; row++)
    for (let column = 0; column < plane.wide; column++) {
      const at = plane.at(view.channel, row, column);
      if (at < 0 || !(marks[at] || (view.colour && (marks[at + plane.count] || marks[at + 2 * plane.count])))) continue;
      [top, left, bottom, right] = [Math.min(top, row), Math.min(left, column), Math.max(bottom, row), Math.max(right, column)];
    }
  if (bottom < 0) return null;
  const x = box.left - origin.left + strip.scrollLeft, y = box.top - origin.top;
  return { left: x + left * scale, right: x + (right + 1) * scale, top: y + top * scale, bottom: y + (bottom + 1) * scale };
}

// ---- keys

function onKey(view, event) {
  const moves = { ArrowUp: [-1, 0, 0], ArrowDown: [1, 0, 0], ArrowLeft: [0, -1, 0], ArrowRight: [0, 1, 0], PageUp: [0, 0, -1], PageDown: [0, 0, 1] };
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves) select(view.place, view.move(...moves[event.key]));
  else if (event.key === " ") select(view.place, view.move(0, 0, 0));
  else if (event.key === "Enter") {
    if (view.place !== state.place) select(view.place, view.move(0, 0, 0));
    else follow();
  } else if (event.key === "Backspace") {
    const past = state.past.pop();
    if (past) go(...past, false);
  } else return;
  event.preventDefault();
}

function go(place, unit, remember = true) {
  select(place, unit, remember);
  viewOf(place)?.map.focus();
}

/** Go to the input with the largest product. */
function follow() {
  if (state.place === IMAGE) return;
  const head = viewOf(state.place).stage.calls[0], joined = parts(head, state.unit);
  if (joined) {
    const best = joined.reduce((a, b) => (Math.abs(b.value) > Math.abs(a.value) ? b : a));
    return viewOf(best.place)?.place === best.place ? go(best.place, best.unit) : undefined;
  }
  const sum = calculation(head, state.unit);
  const best = sum?.entries.filter((e) => e.unit).reduce((a, b) => (!a || Math.abs(b.product) > Math.abs(a.product) ? b : a), null);
  const found = best && origin(head, best.unit);
  if (found && viewOf(found[0])?.place === found[0]) go(...found);
}

/** Earlier outputs at the unit's own place that the model added to make it. */
function parts(head, unit) {
  const { inputs, connection } = calls[head];
  if (inputs.length < 2 || !connection.pointwise || !inputs.every((join) => join.plain && join.connection.pointwise)) return null;
  if (!inputs.every((join) => outputOf(join.source))) return null;
  return inputs.map(({ source }) => ({ place: source, unit, value: outputOf(source)[flat(shapeOf(source), unit)] }));
}

// ---- the numbers below

const term = (text, note, extra = "") => `<span class="term ${extra}"><span class="n">${text}</span> <small>${escaped(note)}</small></span>`;
let showAll = false;

function writeNumbers() {
  const box = document.getElementById("numbers");
  box.replaceChildren();
  if (state.place === IMAGE) {
    box.innerHTML = `<p class="note">A pixel. What it goes into is outlined in the layers after it.</p>`;
    return;
  }
  const { stage } = viewOf(state.place), head = stage.calls[0], joined = parts(head, state.unit);
  const sum = joined ? null : calculation(head, state.unit);
  const valueAt = (n) => outputOf(n)[flat(shapeOf(n), state.unit)];
  const line = document.createElement("p");
  line.className = "sum";
  let first = "";
  if (joined) first = joined.map((part) => term(number(part.value), nameOf(part.place))).join("+ ") +
      `= ${term(number(inputOf(head)[flat(calls[head].connection.in, state.unit)]), "sum")}`;
  else if (!sum) first = term(number(valueAt(head)), calls[head].text);
  else if (sum.kind === "largest") first = term(number(valueAt(head)), "largest of the window");
  else if (sum.kind === "function") first = `${term(number(sum.entries[0].value), "in")} → ${term(number(valueAt(head)), calls[head].text)}`;
  else {
    const added = sum.entries.reduce((a, e) => a + e.product, 0);
    first = `${term(number(added), sum.kind === "shares" ? "mean of the window" : "products")}`;
    if (sum.bias || sum.kind === "weighted") first += `+ ${term(number(sum.bias), sum.kind === "scale" ? "shift" : "bias")}= ${term(number(valueAt(head)), "sum")}`;
  }
  const steps = (joined ? stage.calls : stage.calls.slice(1)).map((n) => `→ ${term(number(valueAt(n)), calls[n].text)}`);
  line.innerHTML = first + steps.join("");
  line.lastElementChild.firstElementChild.classList.add("result");
  box.append(line);
  if (!sum && !joined) {
    const why = !inputOf(head) && calls[head].inputs.length
      ? `Its window lies in ${nameOf(calls[head].inputs[0].source)}, whose values this page leaves out.`
      : `${calls[head].text} is no sum over a window; what can change it is lit.`;
    box.append(Object.assign(document.createElement("p"), { className: "note", textContent: why }));
  }
  if (sum && sum.kind !== "function") writeProducts(box, head, sum);
}

function writeProducts(box, head, sum) {
  const wide = sum.places.length ? sum.places.at(-1).length : 0;
  if (sum.places.length !== 2 || wide > WIDEST) return writeList(box, head, sum);
  const groups = [];
  for (let c = 0; c < sum.channels.length; c++) {
    const entries = sum.entries.slice(c * sum.size, (c + 1) * sum.size);
    groups.push({ channel: sum.channels[c], entries, sum: entries.reduce((a, e) => a + e.product, 0) });
  }
  // Few channels stand in their own order, as in the layer; of many, those that matter most come first.
  if (groups.length > CARDS) groups.sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
  const shown = showAll ? groups : groups.slice(0, CARDS);
  const most = { value: largest(sum.entries.map((e) => e.value)), weight: largestWeight(head, sum.entries),
    product: largest(sum.entries.map((e) => e.product)) };
  const sheet = document.createElement("div");
  sheet.className = "channels";
  sheet.style.setProperty("--card", innerWidth <= 700 ? "100%" : `${Math.max(300, 3 * wide * 48 + 70)}px`);
  for (const group of shown) sheet.append(card(group, wide, most, head, sum));
  box.append(sheet);
  if (groups.length > CARDS) box.append(more(groups, shown));
}

/** Weights are coloured on the scale of their whole layer: one near zero looks like it, also among others near zero. */
function largestWeight(head, entries) {
  const { op } = calls[head];
  op.most ??= op.weights ? largest(op.weights) : 0;
  return op.most || largest(entries.map((e) => e.weight));
}

function more(groups, shown) {
  const button = document.createElement("button");
  button.className = "more";
  const rest = groups.slice(CARDS).reduce((a, g) => a + g.sum, 0);
  button.textContent = showAll ? `Only the ${CARDS} largest` : `${groups.length - shown.length} more channels, sum ${number(rest)}`;
  button.addEventListener("click", () => { showAll = !showAll; writeNumbers(); });
  return button;
}

function card(group, wide, most, head, sum) {
  const element = document.createElement("div");
  element.className = "channel";
  const title = document.createElement("h3");
  const source = origin(head, group.entries.find((e) => e.unit)?.unit ?? [group.channel])?.[0];
  const name = source === IMAGE && image.shape[0] === 3 ? ["red", "green", "blue"][group.channel] : `channel ${group.channel}`;
  title.innerHTML = `<span>${name}${source == null ? "" : ` of ${escaped(nameOf(source))}`}</span>` +
    (sum.kind === "largest" ? "" : `<span class="n">${number(group.sum)}</span>`);
  const row = document.createElement("div");
  row.className = "product";
  if (sum.kind === "largest") row.append(matrix(group.entries, "value", wide, most.value, head));
  else row.append(matrix(group.entries, "value", wide, most.value, head), sign("×"), matrix(group.entries, "weight", wide, most.weight, head),
    sign("="), matrix(group.entries, "product", wide, most.product, head));
  element.append(title, row);
  return element;
}
const sign = (text) => Object.assign(document.createElement("span"), { textContent: text });

function matrix(entries, key, wide, most, head) {
  const table = document.createElement("table");
  const rows = entries.find((e) => e.unit)?.unit, captions = { value: "values", weight: "weights", product: "products" };
  table.createCaption().textContent = captions[key];
  if (rows) table.setAttribute("aria-label", `${captions[key]} of channel ${entries[0].channel}`);
  for (let i = 0; i < entries.length; i += wide) {
    const row = table.insertRow();
    for (const entry of entries.slice(i, i + wide)) fill(row.insertCell(), entry, key, most, head);
  }
  return table;
}

function fill(cell, entry, key, most, head) {
  if (!entry.unit && key !== "weight") {
    cell.className = "outside";
    cell.textContent = "0";
    cell.title = "padding";
    return;
  }
  const rgb = mix(entry[key], most);
  cell.textContent = number(entry[key]);
  cell.style.background = `rgb(${rgb})`;
  cell.style.color = onColour(rgb);
  if (key !== "value") return;
  if (calls[head].op.kind === "largest" && entry.weight) cell.classList.add("won");
  const found = origin(head, entry.unit);
  if (!found || viewOf(found[0])?.place !== found[0]) return;
  cell.classList.add("open");
  cell.title = `${placed(found[1], shapeOf(found[0]))} of ${nameOf(found[0])}`;
  cell.addEventListener("click", () => go(...found));
}

/** Many inputs: the largest products, one a line. */
function writeList(box, head, sum) {
  const sorted = sum.entries.filter((e) => e.unit).sort((a, b) => Math.abs(b.product) - Math.abs(a.product));
  const shown = sorted.slice(0, showAll ? 400 : ROWS), table = document.createElement("table");
  table.className = "list";
  const most = { value: largest(sorted.map((e) => e.value)), weight: largestWeight(head, sorted), product: largest(sorted.map((e) => e.product)) };
  for (const entry of shown) {
    const row = table.insertRow(), found = origin(head, entry.unit);
    row.insertCell().textContent = found ? `${placed(found[1], shapeOf(found[0]))} of ${nameOf(found[0])}` : `input ${entry.unit.join(", ")}`;
    for (const key of ["value", "weight", "product"]) fill(row.insertCell(), entry, key, most[key], head);
  }
  table.createCaption().textContent = "input, value, weight, product";
  box.append(table);
  const rest = sorted.slice(ROWS).map((e) => ({ sum: e.product }));
  if (!rest.length) return;
  const button = document.createElement("button");
  button.className = "more";
  button.textContent = showAll ? `Only the ${ROWS} largest` : `${rest.length} more inputs, sum ${number(rest.reduce((a, e) => a + e.sum, 0))}`;
  button.addEventListener("click", () => { showAll = !showAll; writeNumbers(); });
  box.append(button);
}

// ---- begin

/** Make columns so wide that a whole number of them fills the window: none is cut by its edge. */
function fit() {
  const strip = document.getElementById("strip"), style = getComputedStyle(strip);
  strip.style.removeProperty("--map");
  if (style.flexWrap === "wrap") return;
  const gap = parseFloat(style.columnGap), room = strip.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight) + gap;
  const columns = Math.max(2, Math.round(room / (parseFloat(style.getPropertyValue("--map")) + gap)));
  strip.style.setProperty("--map", `${Math.floor(room / columns - gap)}px`);
}

/** The file, and what the network says it is. */
function writeSource() {
  const line = document.getElementById("source"), said = [];
  if (data.source) said.push(`<b>${escaped(data.source)}</b>`);
  if (data.probabilities) {
    const order = data.probabilities.map((p, i) => [p, data.classes[i]]).sort((a, b) => b[0] - a[0]).slice(0, 3);
    said.push("the network says " + order.map(([p, name], i) => {
      const text = `${escaped(name)} <span class="n">${p.toFixed(4)}</span>`;
      return i ? text : `<b>${text}</b>`;
    }).join(", "));
  }
  line.innerHTML = said.join(": ");
  line.hidden = !said.length;
}

function begin() {
  readColours();
  const strip = document.getElementById("strip");
  strip.insertAdjacentHTML("afterbegin", '<svg class="links" aria-hidden="true"></svg>');
  document.body.insertAdjacentHTML("beforeend", '<div class="tip" aria-hidden="true"></div>');
  new View(IMAGE, null);
  for (const stage of data.stages) if (stage.shown) new View(stage.calls.at(-1), stage);
  for (const view of views) strip.append(view.element);
  fit();
  writeSource();
  select(data.opening.place, data.opening.unit, false, false); // the page opens at the image, on the left
  const redraw = () => { readColours(); fit(); writeNumbers(); draw(); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", redraw);
  // Beams are drawn at places on the screen, and a column that scrolls inside the strip takes its place along.
  strip.addEventListener("scroll", () => link(), { passive: true });
}
begin();

/** For tests and the console: what is chosen, and which units are lit in a shown layer. */
window.pellucid = {
  chosen: () => ({ layer: viewOf(state.place).stage?.label ?? "image", unit: state.unit }),
  layers: () => views.map((view) => (view.place === IMAGE ? "image" : view.stage.label)),
  lit: (layer) => {
    const view = views[window.pellucid.layers().indexOf(layer)], lit = (state.peek ?? state).lit.get(view.place);
    return [...lit.keys()].filter((at) => lit[at]).map((at) => unitAt(view.shape, at));
  },
  weights: () => Array.from(state.slopes?.get(IMAGE) ?? []),
};
