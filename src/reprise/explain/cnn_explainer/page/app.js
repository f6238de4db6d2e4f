/** The page: one network, one picture, one state. Views are made and removed here and nowhere else. */

import { columnScales } from "./colours.js";
import { format, h } from "./dom.js";
import { ElasticConv } from "./elastic_conv.js";
import { ElasticLinear } from "./elastic_linear.js";
import { Formula } from "./formula.js";
import { HyperWidget } from "./hyper.js";
import { OVERVIEW, advance, elasticOf, formulaOf } from "./navigation.js";
import { forward, normalise, softmax } from "./network.js";
import { Overview } from "./overview.js";
import { Pictures } from "./pictures.js";
import { SoftmaxFormula, endsIn } from "./softmax.js";

const VIEWS = {
  "elastic-conv": ElasticConv,
  "elastic-linear": ElasticLinear,
  "formula-conv": Formula,
  "formula-relu": Formula,
  "formula-pool": Formula,
  "formula-softmax": SoftmaxFormula,
};
const SCALES = { unit: "Unit", module: "Module", global: "Global" };

export class App {
  constructor(network, root) {
    Object.assign(this, { network, root, state: OVERVIEW, mode: "unit", elastic: null, formula: null, returns: [] });
    this.dispatch = this.dispatch.bind(this);
    this.#compute(network.samples[0].pixels);
    this.overview = new Overview(network, this.columns, this.dispatch);
    this.pictures = new Pictures(network, (bytes, name) => this.show(bytes, name));
    this.stage = h("div", { class: "stage" }, this.overview.element);
    this.status = h("p", { class: "status", role: "status" });
    root.append(this.#toolbar(), this.stage, this.status, this.pictures.dialog);
    document.getElementById("hyper").append((this.hyper = new HyperWidget()).element);
    document.getElementById("ends-in").textContent = endsIn(network);
    this.#paint(network.samples[0].name);
    this.#place();
    this.#listen();
  }

  #toolbar() {
    const choices = Object.entries(SCALES).map(([mode, label]) =>
      h(
        "label",
        {},
        h("input", {
          type: "radio",
          name: "scale",
          value: mode,
          checked: mode === this.mode,
          onchange: () => this.#rescale(mode),
        }),
        h("span", {}, label),
      ),
    );
    const detail = h("input", {
      type: "checkbox",
      onchange: () => this.root.classList.toggle("detailed", detail.checked),
    });
    this.controls = h(
      "fieldset",
      { class: "scales" },
      h("legend", {}, "Colour scale"),
      h("div", { class: "segments" }, ...choices),
      h("label", { class: "check" }, detail, " Show detail"),
    );
    return h("div", { class: "toolbar" }, this.pictures.fieldset, this.controls);
  }

  #listen() {
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.dispatch({ type: "close" });
    });
    new ResizeObserver(() => this.#place()).observe(this.stage);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.#place();
      this.hyper.draw();
    });
  }

  /** Show another picture: bytes 0..255, channel after channel. */
  show(bytes, name) {
    this.#compute(bytes);
    this.#paint(name);
  }

  #compute(bytes) {
    const start = performance.now();
    this.columns = forward(this.network, normalise(this.network, bytes));
    this.probabilities = softmax(this.columns.at(-1).values);
    this.milliseconds = performance.now() - start;
  }

  #paint(name) {
    this.scales = columnScales(this.network, this.columns, this.mode);
    this.overview.update(this.columns, this.scales, this.probabilities);
    const top = this.probabilities.indexOf(Math.max(...this.probabilities));
    const share = format(100 * this.probabilities[top], 1);
    this.status.textContent = `“${name}” is taken for ${this.network.classes[top]} (${share} %). Computed in ${format(this.milliseconds, 1)} ms in this browser.`;
  }

  #rescale(mode) {
    this.mode = mode;
    this.scales = columnScales(this.network, this.columns, mode);
    this.overview.update(this.columns, this.scales, this.probabilities);
  }

  /** Take a navigation event; see navigation.js. */
  dispatch(event) {
    const next = advance(this.state, event);
    if (next === this.state) return;
    const before = this.state;
    this.state = next;
    this.#rememberFocus(before, next);
    this.#swap("formula", formulaOf(next));
    this.#swap("elastic", elasticOf(next));
    const deeper = next.view !== "overview";
    this.pictures.fieldset.disabled = deeper;
    this.controls.disabled = deeper;
    this.root.dataset.view = next.view;
    this.#place();
    this.#moveFocus();
  }

  /** Replace the view of one level, unless it is the same. */
  #swap(level, state) {
    const shown = this[level];
    if (JSON.stringify(shown?.state ?? null) === JSON.stringify(state)) return;
    shown?.view.dispose();
    this[level] = state && { state, view: new VIEWS[state.view](this, state) };
    if (level === "elastic" && state) {
      const { frame } = this.elastic.view;
      this.overview.element.append(frame.diagram);
      this.stage.after(frame.notes);
    }
  }

  #place() {
    const state = this.elastic?.state;
    this.stage.classList.toggle("open", Boolean(state));
    this.overview.place(this.stage.clientWidth, state ?? null);
    if (state) this.stage.scrollLeft = 0;
    this.elastic?.view.place();
  }

  /** Remember what was focused on the way down; forget it on the way up. */
  #rememberFocus(before, next) {
    const depth = ({ view }) => (view === "overview" ? 0 : elasticOf({ view }) && view.startsWith("formula") ? 2 : 1);
    if (depth(next) > depth(before)) this.returns.push(document.activeElement);
    this.back = depth(next) < depth(before) ? this.returns.splice(depth(next))[0] : null;
  }

  /** Up: to where the reader came from. Down: into the new view. A dialog takes the focus by itself. */
  #moveFocus() {
    const target = this.back ?? (this.formula ? null : this.elastic?.view.frame.notes.querySelector("button"));
    target?.focus({ preventScroll: true });
  }
}
