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
const shapeOf = (n) => (n === IMAGE ? image.shape : calls[n].connection.out);
const labelOf = (n) => (n === IMAGE ? "image" : calls[n].label);
function outputOf(n) {
  if (n === IMAGE) return image.values;
  return calls[n].connection.reshape ? inputOf(n) : calls[n].values;
}
function inputOf(n) {
  return calls[n].given ?? (calls[n].inputs.length === 1 ? outputOf(calls[n].inputs[0].source) : null);
}

// ---- what a unit reads. A connection is a list of reads, each a list of moves from the input to the output: places
// gathered along an axis (by a table, or all of them), axes in another order, another shape.

/** Places on each axis of the input that a unit reads, OUTSIDE for padding; null if they are no window. */
function windowOf(connection, unit) {
  const windows = connection.reads.map((read) => windowBy(read, unit));
  if (windows.includes(null)) return null;
  const met = windows.filter((places) => places.every((axis) => axis.some((place) => place !== OUTSIDE)));
  return met.length > 1 ? null : (met[0] ?? windows[0]);
}

function windowBy(read, unit) {
  let places = unit.map((place) => [place]);
  for (const move of [...read].reverse()) {
    if (move.order) places = inverse(move.order).map((axis) => places[axis]);
    else if (move.before) {
      if (places.some((axis) => axis.length !== 1)) return null;
      places = unitAt(move.before, flat(move.after, places.map(([place]) => place))).map((place) => [place]);
    } else
      places[move.axis] = places[move.axis].flatMap((place) =>
        place === OUTSIDE ? [OUTSIDE] : move.table ? move.table[place] : Array.from({ length: move.in }, (_, i) => i));
  }
  return places;
}

// An axis of the input is found under its number in the order.
const inverse = (order) => order.reduce((found, from, to) => ((found[from] = to), found), []);

/** Every (tap, position) of a window. */
function* taps(places) {
  const counts = places.map((axis) => axis.length);
  for (let tap = 0, n = product(counts); tap < n; tap++) yield [tap, unitAt(counts, tap).map((t, i) => places[i][t])];
}

// ---- which units hang together

/** Mark along one axis by its table: from outputs to the inputs they read, or from inputs to the outputs. */
function alongAxis(marks, shape, axis, table, n, toInput) {
  const outer = product(shape.slice(0, axis)), inner = product(shape.slice(axis + 1)), from = shape[axis];
  const moved = new Uint8Array(outer * n * inner);
  table.forEach((read, out) => {
    for (const place of read) {
      if (place === OUTSIDE) continue;
      const [a, b] = toInput ? [out, place] : [place, out];
      for (let o = 0; o < outer; o++)
        for (let i = 0; i < inner; i++)
          if (marks[(o * from + a) * inner + i]) moved[(o * n + b) * inner + i] = 1;
    }
  });
  return moved;
}

/** Marks repeated along axes of length one. */
function spread(marks, shape, full) {
  if (product(shape) === product(full)) return marks;
  const moved = new Uint8Array(product(full));
  for (let at = 0; at < moved.length; at++) moved[at] = marks[flat(shape, unitAt(full, at).map((p, i) => (shape[i] === 1 ? 0 : p)))];
  return moved;
}

function anyAlong(marks, shape, axis) {
  const outer = product(shape.slice(0, axis)), inner = product(shape.slice(axis + 1)), n = shape[axis];
  const moved = new Uint8Array(outer * inner);
  for (let at = 0; at < marks.length; at++) if (marks[at]) moved[Math.floor(at / (n * inner)) * inner + (at % inner)] = 1;
  return moved;
}

/** Bring marks from one side of a move to the other: [marks, shape]. */
function moved(marks, shape, move, toInput) {
  if (move.order) {
    const order = toInput ? inverse(move.order) : move.order, to = order.map((axis) => shape[axis]);
    const found = new Uint8Array(marks.length), back = inverse(order);
    for (let at = 0; at < found.length; at++) found[at] = marks[flat(shape, back.map((axis) => unitAt(to, at)[axis]))];
    return [found, to];
  }
  if (move.before) {
    const [from, to] = toInput ? [move.after, move.before] : [move.before, move.after];
    return [spread(marks, shape, from), to];
  }
  const to = [...shape];
  if (!move.table) {
    to[move.axis] = 1;
    return [anyAlong(marks, shape, move.axis), to];
  }
  to[move.axis] = toInput ? move.in : move.out;
  return [alongAxis(marks, shape, move.axis, move.table, to[move.axis], toInput), to];
}

/** Moves in the order in which marks pass them. Gathers along different axes may change places: whole axes go first. */
function inOrder(read, toInput) {
  const axes = new Set(read.map((move) => move.axis));
  if (axes.size === read.length && !axes.has(undefined)) return [...read].sort((a, b) => Boolean(a.table) - Boolean(b.table));
  return toInput ? [...read].reverse() : read;
}

function passed(connection, marks, toInput) {
  if (connection.pointwise) return marks;
  const [from, to] = toInput ? [connection.out, connection.in] : [connection.in, connection.out];
  const found = new Uint8Array(product(to));
  for (const read of connection.reads) {
    let now = marks, shape = from;
    for (const move of inOrder(read, toInput)) [now, shape] = moved(now, shape, move, toInput);
    unite(found, spread(now, shape, to));
  }
  return found;
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
    const taken = passed(calls[n].connection, lit.get(n), true);
    for (const join of calls[n].inputs) unite(lit.get(join.source), passed(join.connection, taken, true));
  }
  for (let n = place + 1; n < calls.length; n++)
    for (const join of calls[n].inputs)
      if (join.source >= place && lit.get(join.source).some(Boolean))
        unite(lit.get(n), passed(calls[n].connection, passed(join.connection, lit.get(join.source), false), false));
  return lit;
}

// ---- the numbers

const isKnown = (op) => !["unknown", "left out", "reshape"].includes(op.kind);

/** Window of a unit with values, weights and products, or null where a layer is no sum over a window. */
function calculation(n, unit) {
  const { connection, op } = calls[n], source = inputOf(n), found = windowOf(connection, unit);
  if (!found || !source || !isKnown(op)) return null;
  const [channels, ...places] = found, size = product(places.map((axis) => axis.length));
  const entries = channels.flatMap((channel, c) =>
    Array.from(taps(places), ([tap, position]) => {
      const inside = channel !== OUTSIDE && !position.includes(OUTSIDE), read = [channel, ...position];
      return { channel, tap, unit: inside ? read : null, value: inside ? source[flat(connection.in, read)] : 0,
        weight: weightOf(op, connection, unit, c * size + tap, channels.length * size, inside) };
    }));
  if (op.kind === "largest") {
    const best = entries.reduce((a, b) => (b.unit && (!a || b.value > a.value) ? b : a), null);
    for (const entry of entries) entry.weight = entry === best ? 1 : 0;
  }
  for (const entry of entries) entry.product = entry.value * entry.weight;
  const bias = (op.kind === "scale" ? op.shift[unit[0]] : op.bias?.[unit[op.axis]]) ?? 0;
  return { kind: op.kind, entries, channels, size, places, bias };
}

function weightOf(op, connection, unit, at, count, inside) {
  if (op.kind === "weighted") return op.weights[unit[op.axis] * count + at];
  if (op.kind === "scale") return op.scale[unit[0]];
  if (op.kind === "shares") return inside ? op.shares[flat(connection.out.slice(1), unit.slice(1))] : 0;
  if (op.kind === "function") return op.slope[flat(connection.out, unit)];
  return 1;
}

/** A function that finds, for a flat unit, the channels and flat places that it reads, places OUTSIDE for padding. */
function reader(connection) {
  const grid = connection.out.slice(1), gridIn = connection.in.slice(1), n = product(grid), known = [];
  const apart = connection.reads.length === 1 && connection.reads[0].every((move) => move.axis !== undefined);
  const channelsOf = [];
  return (at) => {
    const channel = Math.floor(at / n), position = at % n;
    // Without shuffles, channels and positions do not depend on each other: each is looked up once.
    let places = apart ? known[position] : null, channels = apart ? channelsOf[channel] : null;
    if (!places || !channels) {
      const found = windowOf(connection, [channel, ...unitAt(grid, position)]);
      channels = channelsOf[channel] = found[0];
      places = known[position] = Array.from(taps(found.slice(1)), ([, p]) => (p.includes(OUTSIDE) ? OUTSIDE : flat(gridIn, p)));
    }
    return { channels, places };
  };
}

/** Bring changes per unit of a call's output to its input; null if it is no sum over a window. */
function pulled(n, above) {
  const { connection, op } = calls[n];
  if (connection.reshape) return above;
  if (!isKnown(op)) return null;
  const grid = product(connection.out.slice(1));
  if (connection.pointwise) return above.map((g, at) => g && g * (op.slope ? op.slope[at] : op.scale[Math.floor(at / grid)]));
  const below = new Float64Array(product(connection.in)), gridIn = product(connection.in.slice(1));
  const source = op.kind === "largest" ? inputOf(n) : null, inputs = reader(connection);
  for (let at = 0; at < above.length; at++) {
    if (above[at] === 0) continue;
    const { channels, places } = inputs(at), unit = op.axis ? unitAt(connection.out, at) : [Math.floor(at / grid)];
    const first = op.kind === "weighted" ? unit[op.axis] * channels.length * places.length : 0;
    let best = -1;
    channels.forEach((channel, c) => {
      for (let tap = 0; tap < places.length; tap++) {
        if (places[tap] === OUTSIDE || channel === OUTSIDE) continue;
        const to = channel * gridIn + places[tap];
        if (op.kind === "weighted") below[to] += above[at] * op.weights[first + c * places.length + tap];
        else if (op.kind === "shares") below[to] += above[at] * op.shares[at % grid];
        else if (op.kind === "function") below[to] += above[at] * op.slope[at];
        else if (best < 0 || source[to] > source[best]) best = to;
      }
    });
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
    for (const { source, connection, plain } of calls[n].inputs) {
      if (!plain) return null;
      const to = found.get(source), begin = firstRead(connection);
      for (let i = 0; i < to.length; i++) to[i] += below[begin + i];
    }
  }
  return found;
}

/** Where an earlier output begins in the input that it is a stretch of, flat. */
function firstRead(connection) {
  const table = connection.reads[0].find((move) => move.axis === 0)?.table;
  return table ? table.findIndex(([place]) => place === 0) * product(connection.in.slice(1)) : 0;
}

/** Where a value of a call's input lies: [place, unit] with reshaping undone, or null if several outputs made it. */
function origin(n, unit) {
  for (;;) {
    if (calls[n].inputs.length !== 1) return null;
    const { source } = calls[n].inputs[0];
    if (source === IMAGE || !calls[source].connection.reshape) return [source, unit];
    unit = unitAt(calls[source].connection.in, flat(calls[source].connection.out, unit));
    n = source;
  }
}
