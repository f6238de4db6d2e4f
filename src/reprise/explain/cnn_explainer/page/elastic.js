/** What both elastic views share: a drawing between two columns that slid apart, and a panel of words below. */

import { h } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";

/** Make an SVG element. */
export function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** The frame of an elastic view: `diagram` lies in the overview, `notes` below it. */
export function elasticFrame({ title, article, buttons, notes, dispatch }) {
  const links = svg("svg", { class: "links", "aria-hidden": "true" });
  return {
    links,
    diagram: h("div", { class: "elastic panel" }, links),
    notes: h(
      "section",
      { class: "notes", "aria-label": title },
      h("h2", {}, title),
      h(
        "p",
        { class: "buttons" },
        ...buttons,
        h("a", { href: `#${article}`, class: "button" }, "Read more"),
        h("button", { type: "button", class: "back", onclick: () => dispatch({ type: "close" }) }, "Back (Esc)"),
      ),
      ...notes,
    ),
  };
}

/** Set position and size of an absolutely placed element. */
export function putAt(element, x, y, width, height = width) {
  Object.assign(element.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
}

/** A soft curve between two points, for an SVG path. */
export function curve(from, to) {
  const middle = (from.x + to.x) / 2;
  return `M${from.x},${from.y} C${middle},${from.y} ${middle},${to.y} ${to.x},${to.y}`;
}

/** The frame around some cells of a map that is drawn as a small square. */
export function frameCells(mark, box, side, row, col, size) {
  const cell = box.width / side;
  const width = Math.max(4, size * cell);
  putAt(mark, box.x + (col + size / 2) * cell - width / 2, box.y + (row + size / 2) * cell - width / 2, width);
}
