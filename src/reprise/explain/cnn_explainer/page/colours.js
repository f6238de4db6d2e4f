/** From numbers to colours. White is exactly 0 in both diverging scales. */

const STOPS = {
  redBlue: "67001f b2182b d6604d f4a582 fddbc7 ffffff d1e5f0 92c5de 4393c3 2166ac 053061",
  brownGreen: "543005 8c510a bf812d dfc27d f6e8c3 ffffff c7eae5 80cdc1 35978f 01665e 003c30",
  grey: "000000 ffffff",
  orange: "fff5eb fee6ce fdd0a2 fdae6b fd8d3c f16913 d94801 a63603 7f2704",
};
const STEPS = 256; // even, so that the middle of a scale is an entry of its own

const TABLES = Object.fromEntries(Object.entries(STOPS).map(([name, stops]) => [name, table(stops)]));

function table(stops) {
  const colours = stops.split(" ").map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));
  return Array.from({ length: STEPS + 1 }, (_, step) => {
    const place = (step / STEPS) * (colours.length - 1);
    const left = Math.min(Math.floor(place), colours.length - 2);
    return colours[left].map((value, part) => Math.round(value + (place - left) * (colours[left + 1][part] - value)));
  });
}

/** The same colours as canvases keep them: opaque, red in the lowest byte. */
const PIXELS = Object.fromEntries(
  Object.entries(TABLES).map(([name, colours]) => [
    name,
    Uint32Array.from(colours, ([red, green, blue]) => 0xff000000 + (blue << 16) + (green << 8) + red),
  ]),
);

/** A scale between two values. */
export const scaleOf = (name, low, high) => ({ name, low, high, table: TABLES[name], pixels: PIXELS[name] });

/** A diverging scale of range R: the deepest colours are at -R/2 and R/2. */
export const diverging = (range, name = "redBlue") => scaleOf(name, -range / 2, range / 2);

/** The scale of kernels: symmetric about 0, up to the largest weight. */
export function weightScale(weights) {
  const top = weights.reduce((most, weight) => Math.max(most, Math.abs(weight)), 0);
  return diverging(2 * (top || 1), "brownGreen");
}

function stepOf({ low, high }, value) {
  return Math.min(STEPS, Math.max(0, Math.round(((value - low) / (high - low)) * STEPS)));
}

/** The [red, green, blue] of a value. */
export const colourOf = (scale, value) => scale.table[stepOf(scale, value)];

/** The colour of a value as one pixel of a canvas. */
export const pixelOf = (scale, value) => scale.pixels[stepOf(scale, value)];

export const cssColour = (scale, value) => `rgb(${colourOf(scale, value).join(" ")})`;

/** Black or white, whichever can be read on a colour. */
export function inkOn([red, green, blue]) {
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#111" : "#fff";
}

/** A horizontal gradient for legends. */
export function gradientOf(scale) {
  const stops = Array.from({ length: 9 }, (_, index) => `rgb(${scale.table[(index * STEPS) / 8].join(" ")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}

/**
 * The range R of every column: 2 (0.1 + max|v|), the maximum rounded half up to three digits, over the outputs of a
 * layer with weights; what follows up to the next such layer shares it. Input and output have 1.
 * @param {"unit" | "module" | "global"} mode one range per such layer, per block up to a pool, or for all
 */
export function rangesOf(columns, mode) {
  const inner = columns.slice(1, -1).map((column, index) => ({ ...column, index: index + 1, top: 0 }));
  let top = 0;
  inner.forEach((column, place) => {
    if (column.layer.weight || place === 0) {
      top = column.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    }
    column.top = top;
  });
  const ranges = new Array(columns.length).fill(1);
  for (const group of groupsOf(inner, mode)) {
    const most = Math.max(...group.map((column) => column.top));
    for (const column of group) ranges[column.index] = 2 * (0.1 + Math.round(most * 1000) / 1000);
  }
  return ranges;
}

/** Neighbouring columns that share a range. */
function groupsOf(columns, mode) {
  const groups = [];
  columns.forEach((column, place) => {
    const before = columns[place - 1]?.layer.kind;
    const starts = {
      unit: Boolean(column.layer.weight),
      module: before === "pool" && column.layer.kind !== "relu" && column.layer.kind !== "flatten",
      global: false,
    }[mode];
    if (starts || place === 0) groups.push([]);
    groups.at(-1).push(column);
  });
  return groups;
}

/** The scale that each column is drawn in. */
export function columnScales(network, columns, mode) {
  return rangesOf(columns, mode).map((range, index) => (index === 0 ? inputScale(network) : diverging(range)));
}

/** Black to white over all that a picture can be. */
function inputScale({ mean, std }) {
  const low = Math.min(...mean.map((value, channel) => -value / std[channel]));
  const high = Math.max(...mean.map((value, channel) => (1 - value) / std[channel]));
  return scaleOf("grey", low, high);
}

/** Of two columns' scales the one that holds both, as the deeper views draw them; the input stays grey. */
export const widerScale = (first, second) => (first.high >= second.high ? first : second);
