/** The widget of the article: what size, padding, kernel and stride do to a convolution's output. */

import { Clock } from "./clock.js";
import { format, h, sharpContext, themeColour } from "./dom.js";
import { widgetOutputSize } from "./network.js";

const LARGEST = 7;
const TICK = 300;
const CELL = 18;

/** The allowed range of each setting, given those before it: [lowest, highest]. */
export function hyperLimits({ size, padding, kernel }) {
  return {
    size: [Math.max(1, kernel - 2 * padding), LARGEST],
    padding: [0, kernel - 1],
    kernel: [padding + 1, size + 2 * padding],
    stride: [1, Math.max(size + 2 * padding - kernel + 1, 2)],
  };
}

const NAMES = { size: "Input size", padding: "Padding", kernel: "Kernel size", stride: "Stride" };

export class HyperWidget {
  constructor() {
    this.settings = { size: 5, padding: 0, kernel: 2, stride: 1 };
    this.at = 0;
    this.inputs = {};
    const fields = Object.entries(NAMES).map(([name, label]) => {
      const input = h("input", { type: "range", step: 1, id: `hyper-${name}`, oninput: () => this.#set(name) });
      const value = h("output", { for: `hyper-${name}` });
      this.inputs[name] = { input, value };
      return h("label", {}, h("span", {}, label), input, value);
    });
    this.before = h("canvas", { role: "img", "aria-label": "Input with the kernel's window" });
    this.after = h("canvas", { role: "img", "aria-label": "Output" });
    this.verdict = h("p", { class: "verdict", "aria-live": "polite" });
    this.toggle = h("button", { type: "button", onclick: () => this.clock.toggle() }, "Play");
    this.clock = new Clock(
      () => this.#step(),
      TICK,
      (running) => {
        this.toggle.textContent = running ? "Pause" : "Play";
      },
    );
    this.element = h(
      "div",
      { class: "hyper" },
      h("div", { class: "fields" }, ...fields, this.toggle),
      h("div", { class: "grids" }, this.before, h("span", { class: "arrow", "aria-hidden": "true" }, "→"), this.after),
      this.verdict,
    );
    this.#update();
  }

  #set(name) {
    this.settings[name] = Number(this.inputs[name].input.value);
    this.#update();
  }

  #update() {
    const { settings } = this;
    const limits = hyperLimits(settings);
    for (const [name, { input, value }] of Object.entries(this.inputs)) {
      const [low, high] = limits[name];
      settings[name] = Math.min(high, Math.max(low, settings[name]));
      Object.assign(input, { min: low, max: high, value: settings[name] });
      value.textContent = settings[name];
    }
    const { size, padding, kernel, stride } = settings;
    this.side = widgetOutputSize(size, padding, kernel, stride);
    this.at = 0;
    this.element.classList.toggle("invalid", this.side === null);
    this.inputs.stride.input.setAttribute("aria-invalid", this.side === null);
    const share = format((size + 2 * padding - kernel) / stride + 1, 2).replace(/\.?0+$/, "");
    const sum = `(${size} + 2·${padding} − ${kernel}) / ${stride} + 1 = ${share}`;
    this.verdict.textContent =
      this.side === null
        ? `${sum}: with this stride the kernel does not end at the border. Choose another stride.`
        : `${sum}: the output is ${this.side}×${this.side}.`;
    this.toggle.disabled = this.side === null;
    if (this.side === null) this.clock.stop();
    this.draw();
  }

  #step() {
    this.at = (this.at + 1) % this.side ** 2;
    this.draw();
  }

  draw() {
    const { size, padding, kernel, stride } = this.settings;
    const whole = size + 2 * padding;
    const [row, col] = this.side ? [Math.floor(this.at / this.side), this.at % this.side] : [0, 0];
    const inner = (y, x) => y >= padding && x >= padding && y < whole - padding && x < whole - padding;
    this.#grid(
      this.before,
      whole,
      (y, x) => (inner(y, x) ? "--cell" : "--cell-padding"),
      this.side && { row: row * stride, col: col * stride, size: kernel },
    );
    this.after.hidden = this.side === null;
    if (this.side)
      this.#grid(this.after, this.side, (y, x) => (y * this.side + x <= this.at ? "--cell-done" : "--cell"), {
        row,
        col,
        size: 1,
      });
  }

  #grid(canvas, side, colour, frame) {
    const context = sharpContext(canvas, side * CELL + 2, side * CELL + 2);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        context.fillStyle = themeColour(colour(y, x));
        context.fillRect(x * CELL + 2, y * CELL + 2, CELL - 2, CELL - 2);
      }
    }
    if (!frame) return;
    context.strokeStyle = themeColour("--mark");
    context.lineWidth = 2;
    context.strokeRect(frame.col * CELL + 1, frame.row * CELL + 1, frame.size * CELL, frame.size * CELL);
  }
}
