/** Level 1: one heat map per neuron, column by column, with all their edges. */

import { gradientOf } from "./colours.js";
import { format, h } from "./dom.js";
import { drawEdges, edgesOf } from "./edges.js";
import { layOut } from "./layout.js";
import { paint, planeOfColumn } from "./matrix.js";

const ARTICLE = { input: "input", conv: "convolution", relu: "relu", pool: "pooling", linear: "softmax" };
const DOES = {
  conv: "shows how it is put together",
  relu: "shows its formula",
  pool: "shows its formula",
  linear: "shows how it is put together",
};

export class Overview {
  /**
   * @param {object} network as readNetwork gives it
   * @param {Array} columns of a first forward pass; later ones must have the same shapes
   * @param {(event: object) => void} dispatch takes navigation events
   */
  constructor(network, columns, dispatch) {
    this.network = network;
    this.dispatch = dispatch;
    // A flatten is no column of the overview. `index` counts the columns of the forward pass.
    this.drawn = columns
      .map((column, index) => ({ column, index }))
      .filter(({ column }) => column.layer.kind !== "flatten")
      .map(({ column, index }) => {
        const last = index === columns.length - 1;
        const kind = last ? "output" : column.shape.length === 1 ? "strip" : "maps";
        return { index, kind, layer: column.layer, layerKind: column.layer.kind, maps: column.shape[0] };
      });
    this.edges = edgesOf(this.drawn);
    this.lines = h("canvas", { class: "edges", "aria-hidden": "true" });
    this.hotLines = h("canvas", { class: "edges hot", "aria-hidden": "true" });
    this.groups = this.drawn.map((entry) => this.#column(entry, columns[entry.index]));
    this.legends = h("div", { class: "legends" });
    this.element = h(
      "div",
      {
        class: "net",
        onclick: (event) => {
          if (!event.target.closest("button, a, [tabindex], .panel")) dispatch({ type: "close" });
        },
      },
      this.lines,
      this.hotLines,
      ...this.groups.map(({ element }) => element),
      this.legends,
    );
  }

  #column(entry, column) {
    const { layer, kind, maps } = entry;
    const size = column.shape.length === 1 ? `${maps}` : `${column.shape[1]}×${column.shape[2]}×${maps}`;
    const label = h("a", { href: `#${ARTICLE[layer.kind]}` });
    label.append(...layer.label.split("_").flatMap((part, place) => (place ? ["_", h("wbr"), part] : [part])));
    const nodes = Array.from({ length: kind === "strip" ? 1 : maps }, (_, neuron) => this.#node(entry, neuron));
    nodes[0].tabIndex = 0;
    const element = h(
      "div",
      { class: `column ${kind}`, role: "group", "aria-label": `${layer.label}, ${size}` },
      h("div", { class: "label" }, label, h("small", { class: "detail" }, ...breakable(size))),
      ...nodes,
    );
    return { element, nodes };
  }

  #node(entry, neuron) {
    const { kind, index, layer } = entry;
    const open = () => {
      if (layer.kind !== "input") {
        this.dispatch({ type: "open", kind: layer.kind, layer: index, neuron: neuronOf(node) });
      }
    };
    const content = {
      maps: () => [h("canvas", { class: "map" })],
      strip: () => [h("canvas", { class: "map" })],
      output: () => [
        h("span", { class: "name" }, this.network.classes[neuron]),
        h("span", { class: "bar" }, h("i")),
        h("span", { class: "value" }),
      ],
    }[kind]();
    const node = h(
      "button",
      {
        type: "button",
        class: "node",
        tabindex: "-1",
        "data-neuron": neuron,
        onclick: open,
        onpointerenter: () => this.highlight(entry, neuronOf(node)),
        onpointermove: (event) => kind === "strip" && this.#mean(entry, node, neuronAt(event, node, entry.maps)),
        onpointerleave: () => this.highlight(null),
        onfocus: () => this.highlight(entry, neuronOf(node)),
        onblur: () => this.highlight(null),
        onkeydown: (event) => this.#move(event, entry, node),
      },
      ...content,
    );
    return node;
  }

  /** Of a strip one neuron is meant at a time: the one under the pointer, or to which arrow keys went. */
  #mean(entry, node, neuron) {
    node.dataset.neuron = Math.min(entry.maps - 1, Math.max(0, neuron));
    this.#describeStrip(entry, node);
    this.highlight(entry, neuronOf(node));
  }

  #describeStrip({ index, layer, maps }, node) {
    const neuron = neuronOf(node);
    const value = format(this.columns[index].values[neuron], 4);
    node.title = `${layer.label}, neuron ${neuron + 1} of ${maps}: ${value}`;
    node.ariaLabel = `${node.title}. Enter ${DOES[layer.kind]}.`;
  }

  /** Arrow keys: up and down inside a column, left and right to the next. Tab goes from column to column. */
  #move(event, entry, from) {
    const [down, right] =
      { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [];
    if (down === undefined) return;
    event.preventDefault();
    if (entry.kind === "strip" && down) {
      this.#mean(entry, from, neuronOf(from) + down);
      return;
    }
    const group = this.groups[this.drawn.indexOf(entry) + right];
    const node = group?.nodes[Math.min(neuronOf(from) + down, group.nodes.length - 1)];
    if (!node) return;
    for (const other of group.nodes) other.tabIndex = other === node ? 0 : -1;
    node.focus();
  }

  /** The node of a neuron of a column of the forward pass. */
  nodeOf(index, neuron) {
    const { nodes } = this.groups[this.drawn.findIndex((entry) => entry.index === index)];
    return nodes[Math.min(neuron, nodes.length - 1)];
  }

  /** Paint the outputs of a forward pass. */
  update(columns, scales, probabilities) {
    this.columns = columns;
    this.drawn.forEach((entry, place) => {
      const { kind, index, layer, maps } = entry;
      const { nodes } = this.groups[place];
      const column = columns[index];
      if (kind === "strip") {
        paint(nodes[0].firstChild, column.values, maps, 1, scales[index]);
        this.#describeStrip(entry, nodes[0]);
        return;
      }
      if (kind === "output") {
        this.#updateOutput(nodes, probabilities);
        return;
      }
      nodes.forEach((node, neuron) => {
        const values = planeOfColumn(column, neuron);
        paint(node.firstChild, values, column.shape[1], column.shape[2], scales[index]);
        const [low, high] = [Math.min(...values), Math.max(...values)].map((value) => format(value));
        const does = DOES[layer.kind] ? ` Enter ${DOES[layer.kind]}.` : "";
        node.ariaLabel = `${layer.label}, map ${neuron + 1} of ${maps}, values from ${low} to ${high}.${does}`;
      });
    });
    this.#updateLegends(scales);
  }

  #updateOutput(nodes, probabilities) {
    const top = probabilities.indexOf(Math.max(...probabilities));
    nodes.forEach((node, neuron) => {
      const value = format(probabilities[neuron], 4);
      node.classList.toggle("top", neuron === top);
      node.querySelector("i").style.width = `${100 * probabilities[neuron]}%`;
      node.querySelector(".value").textContent = value;
      node.title = `${this.network.classes[neuron]}. Output value: ${value}`;
      node.ariaLabel = `${node.title}. Enter ${DOES.linear}.`;
    });
  }

  #updateLegends(scales) {
    this.legends.replaceChildren();
    this.legendSpans = [];
    let place = 0;
    while (place < this.drawn.length - 1) {
      const scale = scales[this.drawn[place].index];
      const same = (other) =>
        scales[this.drawn[other].index].high === scale.high && this.drawn[other].kind !== "output";
      let end = place;
      while (end + 1 < this.drawn.length - 1 && place > 0 && same(end + 1)) end++;
      const marks = scale.low < 0 ? [scale.low, 0, scale.high] : [scale.low, scale.high];
      const legend = h("div", { class: "legend" }, h("i"), ...marks.map((value) => h("small", {}, format(value))));
      legend.firstChild.style.background = gradientOf(scale);
      this.legends.append(legend);
      this.legendSpans.push({ legend, place, end });
      place = end + 1;
    }
    if (this.layout) this.#placeLegends();
  }

  /**
   * Put the columns where they belong; the style sheet animates the way there.
   * @param {number} available width in pixels
   * @param {{ layer, neuron } | null} open the neuron whose column slides away from the one before
   */
  place(available, open) {
    const right = open ? this.drawn.findIndex((entry) => entry.index === open.layer) : null;
    this.layout = layOut(this.drawn, available, right);
    const { width, height, columns } = this.layout;
    Object.assign(this.element.style, { width: `${width}px`, height: `${height}px` });
    this.element.classList.toggle("open", Boolean(open));
    this.groups.forEach(({ element, nodes }, index) => {
      const column = columns[index];
      element.style.transform = `translateX(${column.x}px)`;
      element.classList.toggle("aside", column.aside);
      element.classList.toggle("around", index === right);
      element.style.width = `${column.width}px`;
      element.firstChild.style.width = `${Math.max(column.pitch - 4, column.width)}px`;
      nodes.forEach((node, row) => {
        node.classList.toggle("current", index === right && (row === open.neuron || nodes.length === 1));
        Object.assign(node.style, { top: `${column.rows[row].y}px`, height: `${column.rows[row].height}px` });
      });
    });
    this.#placeLegends();
    this.drawEdges();
  }

  #placeLegends() {
    const { columns, bottom } = this.layout;
    for (const { legend, place, end } of this.legendSpans ?? []) {
      const right = columns[end].x + columns[end].width;
      const left = columns[place].x;
      Object.assign(legend.style, { left: `${left}px`, width: `${right - left}px`, top: `${bottom + 4}px` });
    }
  }

  drawEdges() {
    drawEdges(this.lines, this.edges, this.layout, this.drawn, { colour: "--edge", width: 0.7, alpha: 0.8 });
    this.highlight(null);
  }

  /** Show the edges into a neuron and frame where they come from; nothing for null. */
  highlight(entry, neuron) {
    this.hotLines.classList.toggle("shown", Boolean(entry));
    for (const node of this.element.querySelectorAll(".node.source")) node.classList.remove("source");
    if (!entry) return;
    const place = this.drawn.indexOf(entry);
    const into = this.edges.filter(({ column, to }) => column === place && to === neuron);
    drawEdges(this.hotLines, into, this.layout, this.drawn, { colour: "--edge-hot", width: 1, alpha: 1 });
    if (place === 0) return;
    const { nodes } = this.groups[place - 1];
    for (const { from } of into) nodes[Math.min(from, nodes.length - 1)].classList.add("source");
  }
}

/** A size that may break before its last factor. */
function breakable(size) {
  const cut = Math.max(0, size.lastIndexOf("×"));
  return [size.slice(0, cut), h("wbr"), size.slice(cut)];
}

const neuronOf = (node) => Number(node.dataset.neuron);

/** The neuron of a strip that a pointer is over. */
function neuronAt(event, node, count) {
  const box = node.getBoundingClientRect();
  return Math.floor(((event.clientY - box.top) / box.height) * count);
}
