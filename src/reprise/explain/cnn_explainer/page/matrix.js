/** Matrices on canvases: one pixel per number, enlarged by the style sheet. */

import { pixelOf } from "./colours.js";
import { h } from "./dom.js";
import { planeOf } from "./network.js";

/**
 * Paint a matrix; cells from `until` on stay clear.
 * @param {HTMLCanvasElement} canvas gets the size of the matrix
 */
export function paint(canvas, values, rows, cols, scale, until = values.length) {
  if (canvas.width !== cols) canvas.width = cols;
  if (canvas.height !== rows) canvas.height = rows;
  const context = canvas.getContext("2d");
  const picture = context.createImageData(cols, rows);
  const pixels = new Uint32Array(picture.data.buffer);
  for (let index = 0; index < until; index++) pixels[index] = pixelOf(scale, values[index]);
  context.putImageData(picture, 0, 0);
}

/** One map of a column, without a copy; of a vector the one number. */
export function planeOfColumn({ shape, values }, neuron) {
  return shape.length === 1 ? values.subarray(neuron, neuron + 1) : planeOf(values, shape[1], neuron);
}

/** The side of the maps of a column; a number is a map of one pixel. */
export const sideOf = ({ shape }) => shape[1] ?? 1;

/**
 * A matrix whose cells can be pointed at, by mouse, finger and arrow keys.
 * @param {{ values, rows, cols, scale, label: string, onpoint: (row: number, col: number) => void }} options
 */
export class Matrix {
  constructor({ values, rows, cols, scale, label, onpoint, until }) {
    Object.assign(this, { values, rows, cols, scale, onpoint, row: 0, col: 0, label });
    this.canvas = h("canvas", { class: "map" });
    this.mark = h("span", { class: "mark" });
    this.element = h(
      "div",
      {
        class: "matrix",
        tabindex: "0",
        role: "application",
        "aria-roledescription": "matrix",
        "aria-label": `${label}. Arrow keys move.`,
        onkeydown: (event) => this.#key(event),
        onpointermove: (event) => this.#point(event),
        onpointerdown: (event) => this.#point(event),
      },
      this.canvas,
      this.mark,
    );
    paint(this.canvas, values, rows, cols, scale, until);
  }

  /** Paint no more than the first cells. */
  reveal(until) {
    paint(this.canvas, this.values, this.rows, this.cols, this.scale, until);
  }

  /** Frame a window of cells; it may reach over the border, into padding. `row` and `col` are what a key moves from. */
  frame(row, col, size, at = { row, col }) {
    Object.assign(this, at);
    const percent = (cells, all) => `${(100 * cells) / all}%`;
    Object.assign(this.mark.style, {
      left: percent(col, this.cols),
      top: percent(row, this.rows),
      width: percent(size, this.cols),
      height: percent(size, this.rows),
    });
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const clamp = (value, most) => Math.min(most - 1, Math.max(0, Math.floor(value)));
    this.onpoint(
      clamp(((event.clientY - box.top) / box.height) * this.rows, this.rows),
      clamp(((event.clientX - box.left) / box.width) * this.cols, this.cols),
    );
  }

  #key(event) {
    const [down, right] =
      { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    const row = Math.min(this.rows - 1, Math.max(0, this.row + down));
    this.onpoint(row, Math.min(this.cols - 1, Math.max(0, this.col + right)));
  }
}
