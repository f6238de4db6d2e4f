/**
 * Where the reader is. One function decides every step, and no view knows another.
 *
 *   overview -> elastic-conv -> formula-conv
 *   overview -> elastic-linear -> formula-softmax
 *   overview -> formula-relu | formula-pool
 *
 * A state is { view, layer, neuron, channel }; layer is the index of a column.
 */

export const OVERVIEW = Object.freeze({ view: "overview" });

const OPENS = { conv: "elastic-conv", linear: "elastic-linear", relu: "formula-relu", pool: "formula-pool" };

/**
 * The next state. An event that has no meaning where the reader is changes nothing.
 *
 *   { type: "open", kind, layer, neuron }  a neuron was chosen, also from beside an open one; once more closes it
 *   { type: "formula", channel }           an intermediate result was chosen
 *   { type: "softmax" }                    the softmax sign was chosen
 *   { type: "close" }                      one level up
 */
export function advance(state, event) {
  const { view, layer, neuron } = state;
  switch (event.type) {
    case "open":
      if (!OPENS[event.kind] || view === "formula-conv" || view === "formula-softmax") return state;
      if (view === OPENS[event.kind] && layer === event.layer && neuron === event.neuron) return OVERVIEW;
      return { view: OPENS[event.kind], layer: event.layer, neuron: event.neuron };
    case "formula":
      if (view !== "elastic-conv" && view !== "formula-conv") return state;
      return { view: "formula-conv", layer, neuron, channel: event.channel };
    case "softmax":
      return view === "elastic-linear" ? { view: "formula-softmax", layer, neuron } : state;
    case "close":
      if (view === "formula-conv") return { view: "elastic-conv", layer, neuron };
      if (view === "formula-softmax") return { view: "elastic-linear", layer, neuron };
      return OVERVIEW;
    default:
      return state;
  }
}

/** The elastic view that is on the page in a state, also below a formula; null if there is none. */
export function elasticOf({ view, layer, neuron }) {
  const kind = { "formula-conv": "elastic-conv", "formula-softmax": "elastic-linear" }[view] ?? view;
  return kind.startsWith("elastic-") ? { view: kind, layer, neuron } : null;
}

/** The formula that is on the page in a state; null if there is none. */
export const formulaOf = (state) => (state.view.startsWith("formula-") ? state : null);
