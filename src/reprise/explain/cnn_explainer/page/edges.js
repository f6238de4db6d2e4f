/** The edges between neurons: which there are, and how they are drawn. */

import { sharpContext, themeColour } from "./dom.js";
import { port } from "./layout.js";

const MOST = 2_000; // edges between two columns; of wider layers a regular selection is drawn

/**
 * The edges of the overview. A neuron with weights is linked to all of the column before, the others to one neuron.
 * @param {Array<{ kind, layerKind: string, maps: number }>} columns as drawn
 * @returns {Array<{ column, from, to }>} `from` in the column before, `to` in `column`
 */
export function edgesOf(columns) {
  const edges = [];
  for (let column = 1; column < columns.length; column++) {
    const [before, here] = [columns[column - 1], columns[column]];
    const every = here.layerKind === "conv" || here.layerKind === "linear";
    const step = Math.max(1, Math.ceil((here.maps * (every ? before.maps : 1)) / MOST));
    for (let to = 0; to < here.maps; to += step) {
      if (!every) edges.push({ column, from: to, to });
      else for (let from = 0; from < before.maps; from++) edges.push({ column, from, to });
    }
  }
  return edges;
}

/** Draw edges as soft curves; the canvas takes the size of the layout. */
export function drawEdges(canvas, edges, layout, columns, { colour, width, alpha }) {
  const context = sharpContext(canvas, layout.width, layout.height);
  context.strokeStyle = themeColour(colour);
  context.lineWidth = width;
  context.globalAlpha = alpha;
  context.beginPath();
  for (const { column, from, to } of edges) {
    const start = portOf(layout, columns, column - 1, from, "right");
    const end = portOf(layout, columns, column, to, "left");
    const middle = (start.x + end.x) / 2;
    context.moveTo(start.x, start.y);
    context.bezierCurveTo(middle, start.y, middle, end.y, end.x, end.y);
  }
  context.stroke();
}

function portOf(layout, columns, column, neuron, side) {
  const { kind, maps } = columns[column];
  return kind === "strip" ? port(layout, column, 0, side, (neuron + 0.5) / maps) : port(layout, column, neuron, side);
}
