/** Level 2 for a convolution: one kernel and one intermediate result per input channel, their sum, the bias. */

import { Clock } from "./clock.js";
import { cssColour, widerScale, weightScale } from "./colours.js";
import { format, h } from "./dom.js";
import { curve, elasticFrame, frameCells, putAt, svg } from "./elastic.js";
import { intermediates, kernelOf, kernelsOf } from "./network.js";
import { paint, planeOfColumn } from "./matrix.js";

const TICK = 250; // milliseconds
const TICKS = 100; // of one pass over the output, whatever its size

export class ElasticConv {
  constructor({ overview, columns, scales, dispatch }, { layer: index, neuron }) {
    const column = columns[index];
    const { layer, before } = column;
    Object.assign(this, { overview, column, layer, before, index, neuron });
    this.side = column.shape[1];
    this.at = 0;
    this.scale = widerScale(scales[index], index > 1 ? scales[index - 1] : scales[index]);
    this.parts = intermediates(column, neuron);
    this.output = planeOfColumn(column, neuron);
    this.clock = new Clock(
      () => this.#advance(),
      TICK,
      (running) => {
        this.toggle.textContent = running ? "Pause" : "Play";
        this.frame?.diagram.classList.toggle("flowing", running);
      },
    );
    this.toggle = h("button", { type: "button", onclick: () => this.#toggle() }, "Play");
    this.frame = this.#frame(dispatch);
    this.#draw(dispatch);
    this.clock.startUnlessStill();
    this.#show();
  }

  #frame(dispatch) {
    const { layer, neuron } = this;
    const skip = h("button", { type: "button", onclick: () => this.#skip() }, "Skip to the end");
    return elasticFrame({
      title: `How map ${neuron + 1} of ${layer.label} is put together`,
      article: "convolution",
      dispatch,
      buttons: [this.toggle, skip],
      notes: [
        h(
          "ol",
          {},
          h("li", {}, "Slide a kernel over each input channel: this gives one intermediate result per channel."),
          h("li", {}, "Each input channel has a kernel of its own: the small squares on the links."),
          h("li", {}, `Add up all intermediate results, and then the bias, ${format(layer.bias[neuron], 4)}.`),
        ),
        h("p", { class: "hint" }, "Choose an intermediate result to see its numbers."),
      ],
    });
  }

  #draw(dispatch) {
    const { layer, neuron } = this;
    const kernels = this.parts.map((_, channel) => kernelOf(layer, neuron, channel));
    const colours = weightScale(kernelsOf(layer, neuron));
    this.rows = this.parts.map((_, channel) => {
      const kernel = h("canvas", {
        class: "map kernel",
        role: "img",
        title: matrixText(kernels[channel], layer.kernel),
        "aria-label": `Kernel of channel ${channel + 1}: ${matrixText(kernels[channel], layer.kernel)}`,
      });
      paint(kernel, kernels[channel], layer.kernel, layer.kernel, colours);
      const canvas = h("canvas", { class: "map" });
      const button = h(
        "button",
        {
          type: "button",
          class: "node intermediate",
          "aria-label": `Intermediate result of channel ${channel + 1} of ${layer.in}. Enter shows its numbers.`,
          onclick: () => dispatch({ type: "formula", channel }),
        },
        canvas,
      );
      const row = { kernel, canvas, button, into: svg("path", { class: "link" }), out: svg("path", { class: "link" }) };
      row.windows = [h("span", { class: "mark" }), h("span", { class: "mark" })];
      this.frame.links.append(row.into, row.out);
      this.frame.diagram.append(kernel, button, ...row.windows);
      return row;
    });
    this.sum = h("span", { class: "sign", title: "sum" }, "+");
    this.bias = h("span", { class: "bias" }, h("i"), `bias ${format(layer.bias[neuron])}`);
    this.bias.firstChild.style.background = cssColour(colours, layer.bias[neuron]);
    this.cover = h("canvas", { class: "map cover" });
    this.coverMark = h("span", { class: "mark" });
    this.last = svg("path", { class: "link" });
    this.frame.links.append(this.last);
    this.frame.diagram.append(this.sum, this.bias, this.cover, this.coverMark);
  }

  /** Put everything where the overview's columns are now. */
  place() {
    const { layout, drawn } = this.overview;
    const place = drawn.findIndex((entry) => entry.index === this.index);
    const [left, right] = [layout.columns[place - 1], layout.columns[place]];
    const { cell } = layout;
    const room = right.x - left.x - cell;
    const middle = left.x + cell + room * 0.46 - cell / 2;
    const target = right.rows[this.neuron];
    const sum = { x: middle + cell + (right.x - middle - cell) * 0.5, y: target.y + cell / 2 };
    const size = Math.max(18, Math.min(27, cell * 0.7));
    this.rows.forEach((row, channel) => {
      const y = left.rows[channel].y;
      const centre = y + cell / 2;
      row.input = { x: left.x, y, width: cell };
      row.result = { x: middle, y, width: cell };
      putAt(row.button, middle, y, cell);
      putAt(row.kernel, (left.x + cell + middle) / 2 - size / 2, centre - size / 2, size);
      row.into.setAttribute("d", curve({ x: left.x + cell, y: centre }, { x: middle, y: centre }));
      row.out.setAttribute("d", curve({ x: middle + cell, y: centre }, sum));
    });
    this.target = { x: right.x, y: target.y, width: cell };
    putAt(this.cover, right.x, target.y, cell);
    putAt(this.sum, sum.x - 10, sum.y - 10, 20);
    Object.assign(this.bias.style, { left: `${sum.x}px`, top: `${sum.y + 14}px` });
    this.last.setAttribute("d", curve(sum, { x: right.x, y: sum.y }));
    this.#frameWindows();
  }

  #advance() {
    const cells = this.side ** 2;
    this.at = Math.min(cells, this.at + Math.max(1, Math.round(cells / TICKS)));
    this.#show();
    if (this.at === cells) this.clock.stop();
  }

  #toggle() {
    if (this.at === this.side ** 2) this.at = 0;
    this.clock.toggle();
    this.#show();
  }

  #skip() {
    this.clock.stop();
    this.at = this.side ** 2;
    this.#show();
  }

  #show() {
    // A view that waits for the play button shows the whole.
    const until = this.clock.isRunning || this.at > 0 ? this.at : this.side ** 2;
    this.rows.forEach(({ canvas }, channel) => {
      paint(canvas, this.parts[channel], this.side, this.side, this.scale, until);
    });
    paint(this.cover, this.output, this.side, this.side, this.scale, until);
    if (this.target) this.#frameWindows();
  }

  #frameWindows() {
    const { kernel, stride, padding } = this.layer;
    const at = Math.min(this.at, this.side ** 2 - 1);
    const [row, col] = [Math.floor(at / this.side), at % this.side];
    for (const { input, result, windows } of this.rows) {
      frameCells(windows[0], input, this.before.shape[1], row * stride - padding, col * stride - padding, kernel);
      frameCells(windows[1], result, this.side, row, col, 1);
    }
    frameCells(this.coverMark, this.target, this.side, row, col, 1);
  }

  dispose() {
    this.clock.stop();
    this.frame.diagram.remove();
    this.frame.notes.remove();
  }
}

function matrixText(values, cols) {
  const rows = Array.from({ length: values.length / cols }, (_, row) =>
    Array.from(values.subarray(row * cols, (row + 1) * cols), (value) => format(value)).join("  "),
  );
  return rows.join("\n");
}
