/** Level 2 for a neuron of a linear layer: every number of the vector before it, its weight, their sum, the bias. */

import { cssColour, weightScale } from "./colours.js";
import { format, h, sharpContext } from "./dom.js";
import { curve, elasticFrame, frameCells, putAt, svg } from "./elastic.js";
import { HEADER } from "./layout.js";
import { flattenOrder } from "./network.js";

const MOST_LINES = 600; // a longer vector is thinned out, but for its first and last channel
const MOST_LINKS = 120;
const WIDTH = 22; // of the vector, in pixels

export class ElasticLinear {
  constructor({ overview, network, columns, scales, probabilities, dispatch }, { layer: index, neuron }) {
    const column = columns[index];
    const vector = column.before;
    Object.assign(this, { overview, column, vector, index, neuron, scale: scales[index - 1] });
    this.maps = vector.layer.kind === "flatten" ? vector.before : null;
    this.isLast = index === columns.length - 1;
    this.name = this.isLast ? network.classes[neuron] : `neuron ${neuron + 1} of ${column.layer.label}`;
    const { length } = vector.values;
    this.weights = column.layer.weight.subarray(neuron * length, (neuron + 1) * length);
    this.weightColours = weightScale(this.weights);
    this.lines = linesOf(vector, this.maps);
    this.frame = this.#frame(dispatch, probabilities);
    this.#draw(dispatch);
    this.select(0);
  }

  #frame(dispatch, probabilities) {
    const { column, neuron, vector } = this;
    const [logit, bias] = [column.values[neuron], column.layer.bias[neuron]];
    const count = vector.values.length;
    const shown = this.lines.length < count ? ` ${this.lines.length} of them are drawn.` : "";
    this.readout = h("p", { class: "readout" });
    const sum = `Each is multiplied by a weight of its own. Their sum and the bias ${format(bias, 4)} make ${format(logit, 4)}`;
    return elasticFrame({
      title: `How the score of ${this.name} comes about`,
      article: "flatten",
      dispatch,
      buttons: [],
      notes: [
        h(
          "ol",
          {},
          h(
            "li",
            {},
            `${this.maps ? "The maps are laid out as one vector of" : "The vector has"} ${count} numbers.${shown}`,
          ),
          h("li", {}, this.isLast ? `${sum}, the logit.` : `${sum}.`),
          this.isLast
            ? h(
                "li",
                {},
                `Softmax turns the logits of all classes into probabilities: here ${format(probabilities[neuron], 4)}.`,
              )
            : null,
        ),
        this.readout,
      ],
    });
  }

  #draw(dispatch) {
    this.strip = h("canvas", {
      class: "strip-lines",
      tabindex: "0",
      role: "slider",
      "aria-label": "Numbers of the vector. Arrow keys move.",
      "aria-valuemin": 1,
      "aria-valuemax": this.lines.length,
      onpointermove: (event) => this.#point(event),
      onpointerdown: (event) => this.#point(event),
      onkeydown: (event) => this.#key(event),
    });
    this.web = h("canvas", { class: "edges web", "aria-hidden": "true" });
    this.mark = h("span", { class: "mark", hidden: !this.maps });
    this.sum = h("span", { class: "sign", title: "sum" }, "+");
    this.bias = h("span", { class: "bias" }, `bias ${format(this.column.layer.bias[this.neuron])}`);
    this.chosen = svg("path", { class: "link chosen" });
    this.last = svg("path", { class: "link" });
    this.bands = svg("g", { class: "bands" });
    this.frame.links.append(this.bands, this.last, this.chosen);
    this.frame.diagram.append(this.web, this.strip, this.mark, this.sum, this.bias);
    if (this.isLast) {
      this.softmax = h("button", {
        type: "button",
        class: "softmax",
        "aria-label": "Softmax. Enter shows its formula.",
        onclick: () => dispatch({ type: "softmax" }),
      });
      this.frame.diagram.append(this.softmax);
    }
  }

  place() {
    const { layout, drawn } = this.overview;
    const place = drawn.findIndex((entry) => entry.index === this.index);
    const [left, right] = [layout.columns[place - 1], layout.columns[place]];
    const { cell, bottom } = layout;
    const top = HEADER;
    const height = bottom - top - 8;
    const room = right.x - left.x - cell;
    const x = left.x + cell + room * 0.3 - WIDTH / 2;
    const target = right.rows[right.rows.length === 1 ? 0 : this.neuron];
    const y = Math.min(bottom - 40, Math.max(top + 24, target.y + target.height / 2));
    const end = { x: right.x - 2, y: target.y + target.height / 2 };
    const signs = end.x - x - WIDTH;
    const chip = signs < 170 ? 26 : 62; // the softmax sign is short where there is little room
    const sum = { x: x + WIDTH + (signs - (this.isLast ? chip : 0)) * 0.6, y };
    Object.assign(this, { left, cell, geometry: { x, top, height, sum } });
    putAt(this.strip, x, top, WIDTH, height);
    putAt(this.sum, sum.x - 10, y - 10, 20);
    Object.assign(this.bias.style, { left: `${sum.x}px`, top: `${y + 14}px` });
    if (this.softmax) {
      this.softmax.textContent = chip < 62 ? "σ" : "softmax";
      putAt(this.softmax, end.x - chip - 4, y - 13, chip, 26);
    }
    this.last.setAttribute("d", curve(sum, end));
    this.#paintStrip();
    this.#paintBands();
    this.select(this.at);
  }

  #paintStrip() {
    const { x, top, height, sum } = this.geometry;
    const context = sharpContext(this.strip, WIDTH, height);
    const step = height / this.lines.length;
    this.lines.forEach((line, row) => {
      context.fillStyle = cssColour(this.scale, this.vector.values[line]);
      context.fillRect(0, row * step, WIDTH, step + 0.5);
    });
    const web = sharpContext(this.web, this.overview.layout.width, this.overview.layout.height);
    web.lineWidth = 0.7;
    const every = Math.max(1, Math.ceil(this.lines.length / MOST_LINKS));
    for (let row = 0; row < this.lines.length; row += every) {
      const weight = this.weights[this.lines[row]];
      web.strokeStyle = cssColour(this.weightColours, weight);
      web.globalAlpha = 0.1 + (0.9 * Math.abs(weight)) / this.weightColours.high;
      web.beginPath();
      web.moveTo(x + WIDTH, top + (row + 0.5) * step);
      web.lineTo(sum.x, sum.y);
      web.stroke();
    }
  }

  /** One band from each map to its part of the vector. */
  #paintBands() {
    const { x, top, height } = this.geometry;
    const step = height / this.lines.length;
    const channels = this.maps ? this.lines.map((line) => this.#cellOf(line).channel) : this.lines.map(() => 0);
    this.bands.replaceChildren();
    this.left.rows.forEach((row, channel) => {
      const first = channels.indexOf(channel);
      if (first < 0) return;
      const [a, b] = [top + first * step, top + (channels.lastIndexOf(channel) + 1) * step];
      const [from, to] = [this.left.x + this.cell, x];
      const path = `M${from},${row.y} L${to},${a} V${b} L${from},${row.y + row.height} Z`;
      this.bands.append(svg("path", { class: "band", d: path }));
    });
  }

  /** Where a number of the vector lies among the maps. */
  #cellOf(line) {
    const [, side] = this.maps.shape;
    this.order ??= flattenOrder(this.vector.layer, this.maps.shape);
    const place = this.order[line];
    return { channel: Math.floor(place / side ** 2), row: Math.floor(place / side) % side, col: place % side };
  }

  /** Choose a drawn line of the vector. */
  select(at) {
    this.at = at;
    const line = this.lines[at];
    const [value, weight] = [this.vector.values[line], this.weights[line]];
    const cell = this.maps && this.#cellOf(line);
    const where = cell
      ? `Pixel value (map ${cell.channel + 1}, row ${cell.row + 1}, column ${cell.col + 1})`
      : `Number ${line + 1}`;
    const text = `${where}: ${format(value, 4)} × weight ${format(weight, 4)} = ${format(value * weight, 4)}`;
    this.readout.textContent = text;
    this.strip.setAttribute("aria-valuenow", at + 1);
    this.strip.setAttribute("aria-valuetext", text);
    if (!this.geometry) return;
    const { x, top, height, sum } = this.geometry;
    const y = top + ((at + 0.5) * height) / this.lines.length;
    this.chosen.setAttribute("d", `M${x - 5},${y} H${x + WIDTH} L${sum.x},${sum.y}`);
    if (cell) {
      const box = { x: this.left.x, y: this.left.rows[cell.channel].y, width: this.cell };
      frameCells(this.mark, box, this.maps.shape[1], cell.row, cell.col, 1);
    }
  }

  #point(event) {
    const box = this.strip.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.lines.length);
    this.select(Math.min(this.lines.length - 1, Math.max(0, row)));
  }

  #key(event) {
    const last = this.lines.length - 1;
    const to = {
      ArrowUp: this.at - 1,
      ArrowDown: this.at + 1,
      ArrowLeft: this.at - 1,
      ArrowRight: this.at + 1,
      PageUp: this.at - 20,
      PageDown: this.at + 20,
      Home: 0,
      End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.select(Math.min(last, Math.max(0, to)));
  }

  dispose() {
    this.frame.diagram.remove();
    this.frame.notes.remove();
  }
}

/** The numbers of a vector that are drawn, map after map: all, or the first and last map in full and others thinned. */
function linesOf(vector, maps) {
  const { length } = vector.values;
  const lines = Array.from({ length }, (_, index) => index);
  if (maps) {
    const order = flattenOrder(vector.layer, maps.shape);
    lines.sort((a, b) => order[a] - order[b]);
  }
  if (length <= MOST_LINES) return lines;
  const area = maps ? maps.shape[1] ** 2 : 1;
  const step = Math.max(3, Math.ceil(length / MOST_LINES));
  return lines.filter((_, place) => place < area || place >= length - area || place % step === 0);
}
