/** Level 3: the numbers behind one value of a map. One dialog serves convolution, ReLU and max-pooling. */

import { Clock } from "./clock.js";
import { colourOf, cssColour, inkOn, widerScale, weightScale } from "./colours.js";
import { format, h } from "./dom.js";
import { intermediates, kernelOf, patchAt } from "./network.js";
import { Matrix, planeOfColumn, sideOf } from "./matrix.js";

const TICK = 250; // milliseconds per step, in raster order

/**
 * Open a dialog that pops one level when it is closed, by its button, Esc, or a click beside it.
 * @returns {{ dialog, body, dispose }}
 */
export function formulaDialog({ title, article, buttons = [], dispatch }) {
  const close = () => dispatch({ type: "close" });
  const body = h("div", { class: "body" });
  const info = h("a", { href: `#${article}`, class: "button", "aria-label": "Read more about it in the article" }, "i");
  const shut = h("button", { type: "button", class: "close", "aria-label": "Close", onclick: close }, "×");
  const dialog = h(
    "dialog",
    {
      class: "formula",
      "aria-label": title,
      oncancel: (event) => {
        event.preventDefault();
        close();
      },
      onclick: (event) => {
        if (event.target === dialog) close();
      },
    },
    h("header", {}, h("h2", {}, title), ...buttons, info, shut),
    body,
  );
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, body, dispose: () => dialog.remove() };
}

/** What tells the three kinds apart. `rule` gives the elements of the middle from the patch, and the value. */
const KINDS = {
  conv: {
    article: "convolution",
    title: ({ layer }, { neuron, channel }) => `${layer.label}, map ${neuron + 1}: input channel ${channel + 1}`,
    input: (column, { channel }) => planeOfColumn(column.before, channel),
    output: (column, { neuron, channel }) => intermediates(column, neuron)[channel],
    rule(patch, view) {
      const kernel = kernelOf(view.column.layer, view.state.neuron, view.state.channel);
      const terms = patch.map((value, index) => [value ?? 0, kernel[index]]);
      const cells = terms.map(([value, weight]) =>
        numberCell(view.inputScale, value, format(value), [
          h(
            "span",
            { class: "weight", style: `border-color: ${cssColour(view.kernelScale, weight)}` },
            `× ${format(weight)}`,
          ),
        ]),
      );
      const sum = terms.reduce((total, [value, weight]) => total + value * weight, 0);
      return { middle: [patchGrid(cells)], sentence: `The sum of the products is ${format(sum)}.`, value: sum };
    },
  },
  relu: {
    article: "relu",
    title: ({ layer }, { neuron }) => `${layer.label}, map ${neuron + 1}`,
    input: (column, { neuron }) => planeOfColumn(column.before, neuron),
    output: (column, { neuron }) => planeOfColumn(column, neuron),
    rule([value], view) {
      const cell = numberCell(view.inputScale, value, format(value));
      return {
        middle: [h("span", { class: "text" }, "max(0, "), cell, h("span", { class: "text" }, ")")],
        sentence: value > 0 ? "It is above 0 and stays." : "It is not above 0 and becomes 0.",
        value: Math.max(0, value),
      };
    },
  },
  pool: {
    article: "pooling",
    title: ({ layer }, { neuron }) => `${layer.label}, map ${neuron + 1}`,
    input: (column, { neuron }) => planeOfColumn(column.before, neuron),
    output: (column, { neuron }) => planeOfColumn(column, neuron),
    rule(patch, view) {
      const top = Math.max(...patch.map((value) => value ?? -Infinity));
      const first = patch.indexOf(top);
      const cells = patch.map((value, index) => {
        const cell =
          value === null ? h("span", { class: "number padding" }) : numberCell(view.inputScale, value, format(value));
        cell.classList.toggle("chosen", index === first);
        return cell;
      });
      return {
        middle: [h("span", { class: "text" }, "max "), patchGrid(cells)],
        sentence: `The largest of the ${patch.length} values goes on.`,
        value: top,
      };
    },
  },
};

export class Formula {
  constructor({ columns, scales, dispatch }, state) {
    const column = columns[state.layer];
    this.kind = KINDS[column.layer.kind];
    Object.assign(this, { column, state, at: 0 });
    this.side = sideOf(column);
    const wider = state.layer > 1 ? widerScale(scales[state.layer], scales[state.layer - 1]) : scales[state.layer];
    this.outputScale = column.layer.kind === "conv" ? wider : scales[state.layer];
    this.inputScale = state.layer === 1 ? scales[0] : this.outputScale;
    if (column.layer.kind === "conv") this.kernelScale = weightScale(column.layer.weight);
    this.input = this.kind.input(column, state);
    this.output = this.kind.output(column, state);
    this.toggle = h("button", { type: "button", "aria-label": "Play", onclick: () => this.clock.toggle() }, "▶");
    this.clock = new Clock(
      () => this.show((this.at + 1) % this.output.length),
      TICK,
      (running) => {
        this.toggle.textContent = running ? "❚❚" : "▶";
        this.toggle.ariaLabel = running ? "Pause" : "Play";
      },
    );
    this.frame = formulaDialog({
      title: this.kind.title(column, state),
      article: this.kind.article,
      buttons: [...this.#neighbours(dispatch), this.toggle],
      dispatch,
    });
    this.#draw();
    this.show(0);
    this.clock.startUnlessStill();
  }

  /** Buttons to the map before and after. */
  #neighbours(dispatch) {
    const { column, state } = this;
    const isConv = column.layer.kind === "conv";
    const count = isConv ? column.layer.in : column.shape[0];
    const now = isConv ? state.channel : state.neuron;
    const go = (step) => {
      const to = (now + step + count) % count;
      dispatch(
        isConv
          ? { type: "formula", channel: to }
          : { type: "open", kind: column.layer.kind, layer: state.layer, neuron: to },
      );
    };
    if (count === 1) return [];
    const what = isConv ? "channel" : "map";
    return [
      h("button", { type: "button", "aria-label": `Previous ${what}`, onclick: () => go(-1) }, "‹"),
      h("button", { type: "button", "aria-label": `Next ${what}`, onclick: () => go(1) }, "›"),
    ];
  }

  #draw() {
    const { layer, before } = this.column;
    const width = sideOf(before);
    const { stride = 1, padding = 0 } = layer.kind === "relu" ? {} : layer;
    const point = (row, col) => {
      this.clock.stop();
      this.show(row * this.side + col);
    };
    const limit = (value) => Math.min(this.side - 1, Math.max(0, value));
    this.left = new Matrix({
      values: this.input,
      rows: width,
      cols: width,
      scale: this.inputScale,
      label: `Input, ${width} by ${width}`,
      onpoint: (row, col) => {
        const middle = Math.floor(((layer.kernel || 1) - 1) / 2);
        const cell = (place) => limit(Math.floor((place - middle + padding + stride - 1) / stride));
        point(cell(row), cell(col));
      },
    });
    this.right = new Matrix({
      values: this.output,
      rows: this.side,
      cols: this.side,
      scale: this.outputScale,
      label: `Output, ${this.side} by ${this.side}`,
      onpoint: point,
    });
    this.middle = h("div", { class: "middle" });
    this.sentence = h("p", { class: "sentence" });
    this.frame.body.append(
      h("figure", {}, h("figcaption", {}, `Input (${width}×${width})`), this.left.element),
      this.middle,
      h("figure", {}, h("figcaption", {}, `Output (${this.side}×${this.side})`), this.right.element),
      this.sentence,
    );
  }

  /** Show how an output cell, counted in raster order, is computed. */
  show(at) {
    this.at = at;
    const { layer, before } = this.column;
    const [row, col] = [Math.floor(at / this.side), at % this.side];
    const geometry = layer.kind === "relu" ? { kernel: 1, stride: 1, padding: 0 } : layer;
    const patch = patchAt(this.input, sideOf(before), row, col, geometry);
    const { middle, sentence, value } = this.kind.rule(patch, this);
    const result = numberCell(this.outputScale, value, format(value));
    result.classList.add("result");
    this.middle.replaceChildren(...middle, h("span", { class: "text" }, "="), result);
    this.sentence.textContent = `Row ${row + 1}, column ${col + 1}. ${sentence}`;
    const { kernel, stride, padding } = geometry;
    const [top, left] = [row * stride - padding, col * stride - padding];
    const centre = Math.floor((kernel - 1) / 2);
    this.left.frame(top, left, kernel, { row: top + centre, col: left + centre });
    this.right.frame(row, col, 1);
  }

  dispose() {
    this.clock.stop();
    this.frame.dispose();
  }
}

function patchGrid(cells) {
  const size = Math.sqrt(cells.length);
  return h("div", { class: "patch", style: `grid-template-columns: repeat(${size}, auto)` }, ...cells);
}

function numberCell(scale, value, text, more = []) {
  const style = `background: ${cssColour(scale, value)}; color: ${inkOn(colourOf(scale, value))}`;
  return h("span", { class: "number", style }, text, ...more);
}
