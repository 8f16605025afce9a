// Drawing: numbers as text and colours, a map as cells, one column of the strip.

function number(value) {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  const text = size < 100 ? value.toFixed(4) : size < 1e5 ? value.toFixed(2) : value.toExponential(2);
  return text.replace("-", "−");
}

// ---- colours

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
let colours = {};
function readColours() {
  const parts = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));
  for (const name of ["paper", "zero", "positive", "negative", "precedent", "dependent", "ink"]) colours[name] = css(name);
  for (const name of ["paper", "zero", "positive", "negative"]) colours[name] = parts(colours[name]);
  colours.key = String(colours.paper);
}
function mix(value, largest) {
  const share = largest ? Math.min(1, Math.abs(value) / largest) ** 0.8 : 0;
  const end = value < 0 ? colours.negative : colours.positive;
  return colours.zero.map((zero, i) => Math.round(zero + (end[i] - zero) * share));
}
const largest = (values) => values.reduce((a, v) => (Number.isFinite(v) ? Math.max(a, Math.abs(v)) : a), 0);
const luminance = ([r, g, b]) => (0.299 * r + 0.587 * g + 0.114 * b) / 255;
const onColour = (rgb) => (luminance(rgb) > 0.55 ? "#1e1d1a" : "#fbfaf6");

// ---- a map: cells in rows and columns for one channel, or all channels where each is a single number

class Plane {
  constructor(shape) {
    const grid = shape.slice(1), cells = product(grid);
    this.shape = shape;
    this.single = cells === 1;
    this.wide = this.single ? Math.min(shape[0], shape[0] <= 12 ? 2 : Math.ceil(Math.sqrt(shape[0]))) : grid.at(-1);
    this.high = this.single ? Math.ceil(shape[0] / this.wide) : cells / this.wide;
    this.count = this.single ? shape[0] : cells;
  }
  unit(channel, row, column) {
    const at = row * this.wide + column;
    if (at >= this.count) return null;
    return this.single ? [at, ...this.shape.slice(1).map(() => 0)] : [channel, ...unitAt(this.shape.slice(1), at)];
  }
  cell(unit) {
    const at = this.single ? unit[0] : flat(this.shape.slice(1), unit.slice(1));
    return [Math.floor(at / this.wide), at % this.wide];
  }
  at(channel, row, column) {
    const at = row * this.wide + column;
    return at >= this.count ? -1 : this.single ? at : channel * this.count + at;
  }
}

/** Paint values as an image of one pixel a cell. */
function painted(plane, colourAt) {
  const canvas = document.createElement("canvas");
  canvas.width = plane.wide;
  canvas.height = plane.high;
  const context = canvas.getContext("2d"), pixels = context.createImageData(plane.wide, plane.high);
  for (let row = 0; row < plane.high; row++)
    for (let column = 0; column < plane.wide; column++) {
      const colour = colourAt(row, column);
      if (colour) pixels.data.set(colour.length === 4 ? colour : [...colour, 255], 4 * (row * plane.wide + column));
    }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  return context;
}

/** Fill what is not lit with a veil and draw a line around what is. */
function outline(context, plane, scale, isLit, colour, veil) {
  if (veil) {
    const cover = painted(plane, (row, column) => (isLit(row, column) ? null : [...colours.paper, Math.round(255 * veil)]));
    context.drawImage(cover, 0, 0, plane.wide * scale, plane.high * scale);
  }
  context.strokeStyle = colour;
  context.lineWidth = scale < 4 ? 1.5 : 2;
  context.beginPath();
  const lit = (row, column) => row >= 0 && column >= 0 && row < plane.high && column < plane.wide && isLit(row, column);
  for (let row = 0; row <= plane.high; row++)
    for (let column = 0; column <= plane.wide; column++) {
      const x = column * scale, y = row * scale;
      if (lit(row, column) !== lit(row - 1, column)) context.moveTo(x, y), context.lineTo(x + scale, y);
      if (lit(row, column) !== lit(row, column - 1)) context.moveTo(x, y), context.lineTo(x, y + scale);
    }
  context.stroke();
}

// ---- one column of the strip

class View {
  constructor(place, stage) {
    this.place = place;
    this.stage = stage;
    views.push(this);
    this.shape = shapeOf(place);
    this.plane = new Plane(this.shape);
    this.channel = 0;
    this.cursor = null;
    this.colour = place === IMAGE && this.shape[0] === 3;
    this.build();
  }
  get isImage() { return this.place === IMAGE; }
  get room() { return parseFloat(getComputedStyle(this.element).getPropertyValue("--map")); }
  get values() { return outputOf(this.place); }

  build() {
    const [channels, ...grid] = this.shape, size = [channels, ...grid].join(" × ");
    this.element = document.createElement("section");
    this.element.className = this.isImage ? "stage image" : "stage";
    const head = document.createElement("header"), title = document.createElement("h3"), about = document.createElement("p");
    title.textContent = nameOf(this.place);
    about.textContent = this.isImage ? size : `${size}; ${this.stage.text}`;
    about.title = about.textContent;
    head.append(title, about);
    this.map = document.createElement("div");
    this.map.className = "map";
    this.map.tabIndex = 0;
    this.map.setAttribute("role", "application");
    this.map.setAttribute("aria-roledescription", "activation map");
    this.canvas = document.createElement("canvas");
    this.map.append(this.canvas);
    this.caption = document.createElement("p");
    this.caption.className = "caption";
    this.element.append(head, this.map, this.caption);
    if (this.isImage) this.effects = this.effectCanvases();
    else if (!this.plane.single && channels > 1) this.addThumbs();
    this.listen();
  }
  effectCanvases() {
    return ["total weights", "weights × pixels"].map((name) => {
      const canvas = document.createElement("canvas"), caption = document.createElement("p");
      caption.className = "caption";
      canvas.setAttribute("role", "img");
      this.element.append(canvas, caption);
      return { name, canvas, caption };
    });
  }
  addThumbs() {
    this.thumbs = document.createElement("canvas");
    this.thumbs.className = "thumbs";
    this.thumbs.setAttribute("aria-hidden", "true");
    this.element.append(this.thumbs);
    this.thumbs.addEventListener("click", (event) => {
      const box = this.thumbs.getBoundingClientRect(), { side, across, high } = this.sheet;
      const column = Math.floor((event.clientX - box.left) / side), row = Math.floor((event.clientY - box.top) / high);
      const channel = row * across + column;
      if (column >= across || channel >= this.shape[0]) return;
      const at = (this.cursor ?? this.plane.unit(0, Math.floor(this.plane.high / 2), Math.floor(this.plane.wide / 2))).slice(1);
      select(this.place, [channel, ...at]);
      this.map.focus({ preventScroll: true });
    });
  }
  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / this.scale), row = Math.floor((event.clientY - box.top) / this.scale);
    if (row < 0 || column < 0 || row >= this.plane.high || column >= this.plane.wide) return null;
    return this.plane.unit(this.channel, row, column);
  }
  listen() {
    this.map.addEventListener("click", (event) => {
      const unit = this.cellAt(event);
      if (unit) select(this.place, unit);
    });
    this.map.addEventListener("pointermove", (event) => {
      if (event.pointerType !== "touch") preview(this, this.cellAt(event), event);
    });
    this.map.addEventListener("pointerleave", () => preview(null, null, null));
    this.map.addEventListener("keydown", (event) => onKey(this, event));
  }
  move(rows, columns, channels) {
    const unit = this.cursor ?? this.plane.unit(this.channel, 0, 0), [row, column] = this.plane.cell(unit);
    if (channels && !this.plane.single) {
      const channel = (unit[0] + channels + this.shape[0]) % this.shape[0];
      return [channel, ...unit.slice(1)];
    }
    const clamp = (v, n) => Math.max(0, Math.min(n - 1, v));
    return this.plane.unit(unit[0], clamp(row + rows, this.plane.high), clamp(column + columns, this.plane.wide)) ?? unit;
  }

  draw(lit, chosen, shown) {
    const room = this.room, { plane } = this;
    this.scale = Math.min(room / plane.wide, room / plane.high, plane.single ? 60 : 100);
    if (this.scale > 3) this.scale = Math.floor(this.scale * 2) / 2;
    const context = sized(this.canvas, plane.wide * this.scale, plane.high * this.scale);
    context.drawImage(this.base(this.channel), 0, 0, plane.wide * this.scale, plane.high * this.scale);
    if (this.scale >= 36 && !this.isImage) this.write(context, this.most);
    if (lit && shown) this.light(context, this.scale, this.channel, lit, chosen, this.isImage ? 0.5 : 0.6);
    if (this.thumbs) this.drawThumbs(lit, chosen, shown);
    this.label(chosen);
  }
  /** A channel painted one pixel a cell; kept, because it changes with the colours only. */
  base(channel) {
    if (this.colours !== colours.key) [this.bases, this.colours, this.most] = [new Map(), colours.key, largest(this.values)];
    if (!this.bases.has(channel)) {
      const colourAt = (row, column) => this.paint(this.plane.at(channel, row, column), channel, row, column);
      this.bases.set(channel, painted(this.plane, colourAt));
    }
    return this.bases.get(channel);
  }
  paint(at, channel, row, column) {
    if (at < 0) return null;
    if (!this.isImage) return mix(this.values[at], this.most);
    const grey = (c) => {
      const { low, high } = image.range;
      return Math.round((255 * (this.values[c * this.plane.count + row * this.plane.wide + column] - low)) / (high - low || 1));
    };
    return this.colour ? [grey(0), grey(1), grey(2)] : Array(3).fill(grey(channel));
  }
  write(context, most) {
    context.font = `${this.scale >= 50 ? 13 : 11}px ${css("digits")}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let row = 0; row < this.plane.high; row++)
      for (let column = 0; column < this.plane.wide; column++) {
        const at = this.plane.at(this.channel, row, column);
        if (at < 0) continue;
        const x = (column + 0.5) * this.scale, y = (row + 0.5) * this.scale;
        context.fillStyle = onColour(mix(this.values[at], most));
        const name = this.plane.single ? (data.classes && this.place === data.last ? data.classes[at] : at) : null;
        context.fillText(this.values[at].toFixed(2).replace("-", "−"), x, name === null ? y : y + 8);
        if (name !== null) {
          context.globalAlpha = 0.65;
          context.fillText(String(name).slice(0, 9), x, y - 9);
          context.globalAlpha = 1;
        }
      }
  }
  light(context, scale, channel, lit, chosen, veil) {
    const isLit = (row, column) => {
      const at = this.plane.at(channel, row, column);
      return at >= 0 && (this.colour ? [0, 1, 2].some((c) => lit[c * this.plane.count + at]) : Boolean(lit[at]));
    };
    const before = this.place <= state.place;
    const dim = this.place < state.place ? veil : 0;
    outline(context, this.plane, scale, isLit, before ? colours.precedent : colours.dependent, dim);
    if (!chosen || (!this.plane.single && chosen[0] !== channel && !this.colour)) return;
    const [row, column] = this.plane.cell(chosen);
    context.lineWidth = 3;
    context.strokeRect(column * scale + 1, row * scale + 1, scale - 2, scale - 2);
  }
  drawThumbs(lit, chosen, shown) {
    const { plane } = this, room = this.room - 2, channels = this.shape[0]; // frames are a pixel wider on each side
    const across = channels <= 4 ? channels : Math.max(4, Math.ceil(Math.sqrt(channels)));
    const gap = across > 8 ? 2 : 4, side = (room + gap) / across, scale = Math.min((side - gap) / plane.wide, (side - gap) / plane.high);
    const high = plane.high * scale + gap;
    this.sheet = { side, across, high };
    const context = sized(this.thumbs, room + 2, Math.ceil(channels / across) * high + 2);
    for (let channel = 0; channel < channels; channel++) {
      context.save();
      context.translate((channel % across) * side + 1, Math.floor(channel / across) * high + 1);
      context.drawImage(this.base(channel), 0, 0, plane.wide * scale, plane.high * scale);
      if (lit && shown) this.light(context, scale, channel, lit, chosen, 0.6);
      if (channel === this.channel) {
        context.strokeStyle = colours.ink;
        context.lineWidth = 1.5;
        context.strokeRect(-1, -1, plane.wide * scale + 2, plane.high * scale + 2);
      }
      context.restore();
    }
  }
  label(chosen) {
    const unit = chosen ?? this.cursor, channels = this.shape[0];
    const name = this.colour || (this.isImage && channels === 1) ? "" : `channel <b>${this.channel}</b> of ${channels}`;
    this.caption.innerHTML = this.plane.single ? `${channels} channels` : name;
    if (this.isImage && !name) this.caption.textContent = "as the network sees it";
    const told = unit ? `${placed(unit, this.shape)}, ${valued(this.place, unit)}` : "";
    this.map.setAttribute("aria-label",
      `${this.isImage ? "image" : `${nameOf(this.place)}, ${this.stage.text}`}; ${told}. ` +
      "Arrow keys move, Page Up and Page Down change the channel, Enter follows the largest product.");
  }
  drawEffects(weights) {
    const { plane } = this, scale = this.scale;
    const each = [weights, weights && weights.map((w, i) => w * this.values[i])];
    each.forEach((values, i) => {
      const { name, canvas, caption } = this.effects[i];
      canvas.hidden = !values;
      if (!values) {
        const why = calls.some((call) => call.op.kind === "left out") ? "this page leaves layers out" : "a layer between is no sum over a window";
        caption.textContent = i || state.place === IMAGE ? "" : `no total weights: ${why}`;
        return;
      }
      const context = sized(canvas, plane.wide * scale, plane.high * scale);
      const summed = new Float64Array(plane.count);
      for (let at = 0; at < values.length; at++) summed[at % plane.count] += values[at];
      const most = largest(summed);
      context.drawImage(painted(plane, (row, column) => mix(summed[row * plane.wide + column], most)), 0, 0,
        plane.wide * scale, plane.high * scale);
      const sum = values.reduce((a, v) => a + v, 0), activation = outputOf(state.place)[flat(shapeOf(state.place), state.unit)];
      caption.innerHTML = i
        ? `<b>${name}</b>${this.shape[0] > 1 ? ", channels added" : ""}: <span class="n">${number(sum)}</span>; with the biases’ ` +
          `<span class="n">${number(activation - sum)}</span> it is the activation`
        : `<b>${name}</b>${most === 0 ? ": all 0, something on the way is shut" : this.shape[0] > 1 ? ", channels added" : ""}`;
      canvas.setAttribute("aria-label", caption.textContent);
    });
  }
}

function placed(unit, shape) {
  const at = unit.slice(1), words = product(shape.slice(1)) === 1 ? "" : at.length === 2 ? `row ${at[0]}, column ${at[1]}` : `at ${at.join(", ")}`;
  return shape[0] === 1 && words ? words : words ? `channel ${unit[0]}, ${words}` : `channel ${unit[0]}`;
}
const valued = (place, unit) => number(outputOf(place)[flat(shapeOf(place), unit)]);
