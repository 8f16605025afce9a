"use strict";
// The network as the page knows it: its values, which units hang together, and the numbers behind one of them.
// A unit is [channel, ...position]; arrays are flat in this order. Calls are numbered from 0; the image is -1.

const IMAGE = -1, OUTSIDE = -1;
const data = JSON.parse(document.getElementById("data").textContent);
const { calls, image } = data;

const floats = (text) =>
  text == null ? null : new Float32Array(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
image.values = floats(image.values);
for (const call of calls) {
  call.values = floats(call.values);
  call.given = floats(call.given);
  for (const key of ["weights", "bias", "shares", "scale", "shift", "slope"])
    if (key in call.op) call.op[key] = floats(call.op[key]);
}

// ---- arithmetic of units

const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
const flat = (shape, unit) => unit.reduce((at, place, axis) => at * shape[axis] + place, 0);
function unitAt(shape, at) {
  const unit = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    unit[axis] = at % shape[axis];
    at = Math.floor(at / shape[axis]);
  }
  return unit;
}
const shapeOf = (n) => (n === IMAGE ? image.shape : calls[n].reach.out);
const labelOf = (n) => (n === IMAGE ? "image" : calls[n].label);
function outputOf(n) {
  if (n === IMAGE) return image.values;
  return calls[n].reach.kind === "reshape" ? inputOf(n) : calls[n].values;
}
function inputOf(n) {
  return calls[n].given ?? (calls[n].inputs.length === 1 ? outputOf(calls[n].inputs[0].source) : null);
}

/** Input channels of an output channel, and input places of an output position on each axis. */
function windowOf(reach, unit) {
  if (reach.kind === "window") {
    const width = reach.in[0] / reach.groups;
    const first = Math.floor(unit[0] / (reach.out[0] / reach.groups)) * width;
    return { first, width, places: reach.axes.map((axis, i) => axis[unit[1 + i]]) };
  }
  if (reach.kind === "slice") return { first: unit[0] - reach.offset, width: 1, places: unit.slice(1).map((p) => [p]) };
  return null;
}

/** Every (tap, position) of a window. */
function* taps(places) {
  const counts = places.map((axis) => axis.length);
  for (let tap = 0, n = product(counts); tap < n; tap++) yield [tap, unitAt(counts, tap).map((t, i) => places[i][t])];
}

// ---- which units hang together

/** Mark along one axis by its table: from outputs to the inputs they take, or from inputs to the outputs. */
function alongAxis(marks, shape, axis, table, n, toInput) {
  const outer = product(shape.slice(0, axis)), inner = product(shape.slice(axis + 1)), from = shape[axis];
  const moved = new Uint8Array(outer * n * inner);
  table.forEach((taken, out) => {
    for (const place of taken) {
      if (place === OUTSIDE) continue;
      const [a, b] = toInput ? [out, place] : [place, out];
      for (let o = 0; o < outer; o++)
        for (let i = 0; i < inner; i++)
          if (marks[(o * from + a) * inner + i]) moved[(o * n + b) * inner + i] = 1;
    }
  });
  shape[axis] = n;
  return moved;
}

function regroup(marks, shape, groups, channels) {
  const grid = product(shape.slice(1)), each = shape[0] / groups, wide = channels / groups;
  const moved = new Uint8Array(channels * grid);
  for (let c = 0; c < shape[0]; c++)
    for (let i = 0; i < grid; i++)
      if (marks[c * grid + i])
        for (let k = 0, g = Math.floor(c / each); k < wide; k++) moved[(g * wide + k) * grid + i] = 1;
  return moved;
}

function passed(reach, marks, toInput) {
  const [from, to] = toInput ? [reach.out, reach.in] : [reach.in, reach.out];
  if (reach.kind === "reshape") return marks;
  if (reach.kind === "all") return new Uint8Array(product(to)).fill(marks.some(Boolean) ? 1 : 0);
  if (reach.kind === "slice") {
    const begin = reach.offset * product(reach.in.slice(1)), n = product(reach.in);
    if (toInput) return marks.slice(begin, begin + n);
    const out = new Uint8Array(product(to));
    out.set(marks, begin);
    return out;
  }
  if (reach.kind === "channel") {
    const wide = product(from.slice(1)), n = product(to.slice(1)), out = new Uint8Array(product(to));
    for (let c = 0; c < to[0]; c++) if (marks.subarray(c * wide, (c + 1) * wide).some(Boolean)) out.fill(1, c * n, (c + 1) * n);
    return out;
  }
  const shape = [reach.groups, ...from.slice(1)];
  let marked = regroup(marks, [...from], reach.groups, reach.groups);
  reach.axes.forEach((table, i) => {
    marked = alongAxis(marked, shape, i + 1, table, to[i + 1], toInput);
  });
  return regroup(marked, shape, reach.groups, to[0]);
}

function unite(marks, more) {
  for (let i = 0; i < more.length; i++) if (more[i]) marks[i] = 1;
}

/** Marks of everything before and after a unit: Map of call → Uint8Array. */
function reached(place, unit) {
  const lit = new Map();
  for (let n = IMAGE; n < calls.length; n++) lit.set(n, new Uint8Array(product(shapeOf(n))));
  lit.get(place)[flat(shapeOf(place), unit)] = 1;
  for (let n = place; n > IMAGE; n--) {
    if (!lit.get(n).some(Boolean)) continue;
    const taken = passed(calls[n].reach, lit.get(n), true);
    for (const join of calls[n].inputs) unite(lit.get(join.source), passed(join.reach, taken, true));
  }
  for (let n = place + 1; n < calls.length; n++)
    for (const join of calls[n].inputs)
      if (join.source >= place && lit.get(join.source).some(Boolean))
        unite(lit.get(n), passed(calls[n].reach, passed(join.reach, lit.get(join.source), false), false));
  return lit;
}

// ---- the numbers

const isKnown = (op) => op.kind !== "unknown" && op.kind !== "left out";

/** Window of a unit with values, weights and products, or null where a layer is no sum over a window. */
function calculation(n, unit) {
  const { reach, op } = calls[n], source = inputOf(n), found = windowOf(reach, unit);
  if (!found || !source || !isKnown(op)) return null;
  const { first, width, places } = found, size = product(places.map((axis) => axis.length));
  const entries = [];
  for (let c = 0; c < width; c++)
    for (const [tap, position] of taps(places)) {
      const inside = !position.includes(OUTSIDE), taken = [first + c, ...position];
      entries.push({ channel: first + c, tap, unit: inside ? taken : null, value: inside ? source[flat(reach.in, taken)] : 0,
        weight: weightOf(op, reach, unit, c * size + tap, width * size, inside) });
    }
  if (op.kind === "largest") {
    const best = entries.reduce((a, b) => (b.unit && (!a || b.value > a.value) ? b : a), null);
    for (const entry of entries) entry.weight = entry === best ? 1 : 0;
  }
  for (const entry of entries) entry.product = entry.value * entry.weight;
  const bias = (op.kind === "scale" ? op.shift[unit[0]] : op.bias?.[unit[0]]) ?? 0;
  return { kind: op.kind, entries, first, width, size, places, bias };
}

function weightOf(op, reach, unit, at, count, inside) {
  if (op.kind === "weighted") return op.weights[unit[0] * count + at];
  if (op.kind === "scale") return op.scale[unit[0]];
  if (op.kind === "shares") return inside ? op.shares[flat(reach.out.slice(1), unit.slice(1))] : 0;
  if (op.kind === "function") return op.slope[flat(reach.out, unit)];
  return 1;
}

/** For each position of a layer's grid, the flat input place of each tap, or OUTSIDE. */
function tapPlaces(call) {
  const { reach } = call, grid = reach.out.slice(1), gridIn = reach.in.slice(1);
  call.taps ??= Array.from({ length: product(grid) }, (_, at) => {
    const places = unitAt(grid, at).map((p, i) => reach.axes[i][p]);
    return Array.from(taps(places), ([, position]) => (position.includes(OUTSIDE) ? OUTSIDE : flat(gridIn, position)));
  });
  return call.taps;
}

/** Bring changes per unit of a call's output to its input; null if it is no sum over a window. */
function pulled(n, above) {
  const { reach, op } = calls[n];
  if (reach.kind === "reshape") return above;
  if (!isKnown(op)) return null;
  const grid = product(reach.out.slice(1));
  if (reach.kind === "slice") return above.map((g, at) => g && g * (op.slope ? op.slope[at] : op.scale[Math.floor(at / grid)]));
  const below = new Float64Array(product(reach.in)), gridIn = product(reach.in.slice(1)), places = tapPlaces(calls[n]);
  const source = op.kind === "largest" ? inputOf(n) : null, width = reach.in[0] / reach.groups;
  for (let at = 0; at < above.length; at++) {
    if (above[at] === 0) continue;
    const channel = Math.floor(at / grid), inside = places[at % grid], count = width * inside.length;
    const first = Math.floor(channel / (reach.out[0] / reach.groups)) * width;
    let best = -1;
    for (let c = 0; c < width; c++)
      for (let tap = 0; tap < inside.length; tap++) {
        if (inside[tap] === OUTSIDE) continue;
        const to = (first + c) * gridIn + inside[tap];
        if (op.kind === "weighted") below[to] += above[at] * op.weights[channel * count + c * inside.length + tap];
        else if (op.kind === "shares") below[to] += above[at] * op.shares[at % grid];
        else if (best < 0 || source[to] > source[best]) best = to;
      }
    if (op.kind === "largest") below[best] += above[at];
  }
  return below;
}

/** Change of one unit per unit of everything before it: Map of call → Float64Array; null if a layer stands in the way. */
function slopes(place, unit) {
  const found = new Map();
  for (let n = IMAGE; n <= place; n++) found.set(n, new Float64Array(product(shapeOf(n))));
  found.get(place)[flat(shapeOf(place), unit)] = 1;
  for (let n = place; n > IMAGE; n--) {
    const above = found.get(n);
    if (!above.some((g) => g !== 0)) continue;
    const below = pulled(n, above);
    if (!below) return null;
    for (const { source, reach, plain } of calls[n].inputs) {
      if (!plain) return null;
      const begin = reach.kind === "slice" ? reach.offset * product(reach.in.slice(1)) : 0, to = found.get(source);
      for (let i = 0; i < to.length; i++) to[i] += below[begin + i];
    }
  }
  return found;
}

/** Where a value of a call's input lies: [place, unit] with reshaping undone, or null if several outputs made it. */
function origin(n, unit) {
  for (;;) {
    if (calls[n].inputs.length !== 1) return null;
    const { source } = calls[n].inputs[0];
    if (source === IMAGE || calls[source].reach.kind !== "reshape") return [source, unit];
    unit = unitAt(calls[source].reach.in, flat(calls[source].reach.out, unit));
    n = source;
  }
}
