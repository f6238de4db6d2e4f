/** Level 3 of a class: softmax as a fraction whose terms light up with the logits they come from. */

import { Clock } from "./clock.js";
import { colourOf, inkOn, scaleOf } from "./colours.js";
import { format, h } from "./dom.js";
import { formulaDialog } from "./formula.js";

const TICK = 400; // milliseconds from term to term

export class SoftmaxFormula {
  constructor({ network, columns, probabilities, dispatch }, { neuron }) {
    const logits = columns.at(-1).values;
    const [low, high] = [Math.min(...logits), Math.max(...logits)];
    const scale = scaleOf("orange", low - (high - low) * 0.1 - 1e-9, high + 1e-9);
    const toggle = h("button", { type: "button", "aria-label": "Play", onclick: () => this.#toggle() }, "▶");
    const frame = formulaDialog({
      title: `Softmax of ${network.classes[neuron]}`,
      article: "softmax",
      buttons: [toggle],
      dispatch,
    });
    Object.assign(this, { frame, shown: logits.length });
    this.clock = new Clock(
      () => this.#next(),
      TICK,
      (running) => {
        toggle.textContent = running ? "❚❚" : "▶";
        toggle.ariaLabel = running ? "Pause" : "Play";
      },
    );
    this.pairs = Array.from(logits, (logit, index) => this.#pair(index, logit, scale, network.classes[index]));
    const own = h(
      "span",
      { class: "term own", style: chipStyle(scale, logits[neuron]) },
      `exp(${format(logits[neuron])})`,
    );
    own.addEventListener("pointerenter", () => this.#light(neuron));
    const plus = () => h("span", { class: "plus" }, " + ");
    const sum = this.pairs.flatMap(({ term }, index) => (index ? [plus(), term] : [term]));
    frame.body.append(
      h("div", { class: "logits", role: "list", "aria-label": "Logits" }, ...this.pairs.map(({ logit }) => logit)),
      h(
        "div",
        { class: "fraction", "aria-label": "Softmax formula" },
        h("div", { class: "numerator" }, own),
        h("div", { class: "denominator" }, ...sum),
      ),
      h("p", { class: "equals" }, "= ", h("output", {}, format(probabilities[neuron], 4))),
      h("p", { class: "sentence" }, endsIn(network)),
    );
    this.#light(neuron);
    if (logits.length <= 40) this.#startUnlessStill();
  }

  #startUnlessStill() {
    this.clock.startUnlessStill();
    if (this.clock.isRunning) this.#show(0);
  }

  #pair(index, value, scale, name) {
    const attributes = {
      tabindex: "0",
      style: chipStyle(scale, value),
      onpointerenter: () => this.#light(index),
      onfocus: () => this.#light(index),
    };
    return {
      logit: h(
        "span",
        { class: "logit", role: "listitem", ...attributes, title: name },
        h("b", {}, name),
        format(value),
      ),
      term: h("span", { class: "term", ...attributes, title: name }, `exp(${format(value)})`),
    };
  }

  /** Highlight the logit and the term of a class. */
  #light(index) {
    this.pairs.forEach(({ logit, term }, place) => {
      logit.classList.toggle("lit", place === index);
      term.classList.toggle("lit", place === index);
    });
  }

  #toggle() {
    if (!this.clock.isRunning && this.shown === this.pairs.length) this.#show(0);
    this.clock.toggle();
  }

  #next() {
    this.#show(this.shown + 1);
    this.#light(this.shown - 1);
    if (this.shown === this.pairs.length) this.clock.stop();
  }

  #show(count) {
    this.shown = count;
    this.pairs.forEach(({ term }, index) => term.classList.toggle("coming", index >= count));
  }

  dispose() {
    this.clock.stop();
    this.frame.dispose();
  }
}

function chipStyle(scale, value) {
  const [red, green, blue] = colourOf(scale, value);
  return `background: rgb(${red} ${green} ${blue}); color: ${inkOn([red, green, blue])}`;
}

/** Which of the two the exported module gives, in a sentence. */
export function endsIn({ endsIn: end }) {
  return {
    logits: "This network gives logits; the page adds the softmax.",
    probabilities: "This network ends in softmax; the page shows the logits before it.",
    "log-probabilities": "This network ends in the logarithm of softmax; the page shows the logits before it.",
  }[end];
}
