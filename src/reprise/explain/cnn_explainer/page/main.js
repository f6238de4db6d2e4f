/** Starts the page. Without a document (under Node, say) it only offers the arithmetic. */

import { App } from "./app.js";
import { Clock } from "./clock.js";
import { rangesOf } from "./colours.js";
import { hyperLimits } from "./hyper.js";
import { OVERVIEW, advance, elasticOf, formulaOf } from "./navigation.js";
import { forward, intermediates, normalise, readNetwork, softmax, widgetOutputSize } from "./network.js";
import { channelsOf, cropPlan } from "./pictures.js";

const explainer = {
  OVERVIEW,
  Clock,
  advance,
  channelsOf,
  cropPlan,
  elasticOf,
  formulaOf,
  forward,
  hyperLimits,
  intermediates,
  normalise,
  rangesOf,
  readNetwork,
  softmax,
  widgetOutputSize,
};
globalThis.cnnExplainer = explainer;

if (typeof document !== "undefined") {
  const network = readNetwork(JSON.parse(document.getElementById("network").textContent));
  explainer.app = new App(network, document.getElementById("explainer"));
}
