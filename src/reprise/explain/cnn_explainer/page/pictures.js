/** Which picture the network looks at: a sample, or one of the reader's own, which never leaves the browser. */

import { h } from "./dom.js";

const UNREADABLE = "This is not a picture that the browser can read. Try a PNG or JPEG file.";
const ADDRESS =
  "This is only the address of a picture, and this page fetches nothing. Save the picture, then choose the file.";
const NOTHING = "There was no picture in what was pasted or dropped.";

/**
 * Where to draw a picture so that a square of `size` shows its middle: scaled so that the smaller side is one pixel
 * longer than the square, then cropped. A picture that has the size already is left as it is.
 */
export function cropPlan(width, height, size) {
  if (width === size && height === size) return { x: 0, y: 0, width, height };
  const factor = (size + 1) / Math.min(width, height);
  const [scaledWidth, scaledHeight] = [Math.round(width * factor), Math.round(height * factor)];
  const offset = (side) => Math.floor(side / 2) - Math.floor(size / 2);
  return { x: -offset(scaledWidth), y: -offset(scaledHeight), width: scaledWidth, height: scaledHeight };
}

/** RGBA bytes, pixel after pixel, to channels one after the other. Alpha is dropped; one channel is the brightness. */
export function channelsOf(rgba, channels) {
  const area = rgba.length / 4;
  const bytes = new Uint8Array(channels * area);
  for (let pixel = 0; pixel < area; pixel++) {
    const [red, green, blue] = rgba.subarray(4 * pixel, 4 * pixel + 3);
    if (channels === 1) bytes[pixel] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue);
    else [red, green, blue].forEach((value, channel) => (bytes[channel * area + pixel] = value));
  }
  return bytes;
}

/** Decode a file into the bytes that a network takes. */
async function decode(file, { size, channels }) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(UNREADABLE);
  }
  const canvas = h("canvas", { width: size, height: size });
  const context = canvas.getContext("2d", { alpha: false, willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  const { x, y, width, height } = cropPlan(bitmap.width, bitmap.height, size);
  context.drawImage(bitmap, x, y, width, height);
  bitmap.close();
  return channelsOf(context.getImageData(0, 0, size, size).data, channels);
}

/** The first file of a paste or drop; an error that says what came instead. */
function fileOf(transfer) {
  const file = transfer.files[0];
  if (file) return file;
  throw new Error(/^(https?:|\/\/)/.test(transfer.getData("text")) ? ADDRESS : NOTHING);
}

export class Pictures {
  /** @param {(bytes: Uint8Array, name: string) => void} onchoose told about every new picture */
  constructor(network, onchoose) {
    Object.assign(this, { network, onchoose });
    this.own = network.channels === 1 || network.channels === 3;
    this.buttons = network.samples.map(({ name, pixels }) => {
      const canvas = h("canvas", { class: "map" });
      drawBytes(canvas, pixels, network);
      return h(
        "button",
        {
          type: "button",
          class: "sample",
          title: name,
          "aria-label": `Picture: ${name}`,
          onclick: (event) => this.#choose(pixels, name, event.currentTarget),
        },
        canvas,
      );
    });
    this.add = h(
      "button",
      {
        type: "button",
        class: "sample add",
        hidden: !this.own,
        "aria-label": "Your own picture",
        title: "Your own picture",
        onclick: () => this.#open(),
      },
      "+",
    );
    this.fieldset = h("fieldset", { class: "pictures" }, h("legend", {}, "Picture"), ...this.buttons, this.add);
    this.#mark(this.buttons[0]);
    this.dialog = this.#dialog();
    if (this.own) this.#listen();
  }

  #dialog() {
    const input = h("input", {
      type: "file",
      accept: "image/*",
      onchange: () => input.files[0] && this.#take(() => input.files[0]),
    });
    this.input = input;
    this.error = h("p", { class: "error", role: "alert" });
    const dialog = h(
      "dialog",
      { class: "own", "aria-label": "Your own picture", onclick: (event) => event.target === dialog && dialog.close() },
      h("h2", {}, "Your own picture"),
      h(
        "p",
        {},
        "Choose a file, drop one here, or paste a picture. It stays in your browser. Its middle is cut out as a square.",
      ),
      h("p", {}, h("label", { class: "button file" }, "Choose a file", input)),
      this.error,
      h("p", {}, h("button", { type: "button", onclick: () => dialog.close() }, "Cancel")),
    );
    return dialog;
  }

  #open() {
    this.error.textContent = "";
    this.input.value = "";
    this.dialog.showModal();
  }

  /** Paste and drop work all over the page, except while a deeper view is open. */
  #listen() {
    document.addEventListener("paste", (event) => this.#take(() => fileOf(event.clipboardData)));
    document.addEventListener("dragover", (event) => event.preventDefault());
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      this.#take(() => fileOf(event.dataTransfer));
    });
  }

  async #take(getFile) {
    if (this.fieldset.disabled) return;
    try {
      const file = getFile();
      const bytes = await decode(file, this.network);
      if (this.fieldset.disabled) return; // a deeper view was opened meanwhile
      drawBytes(this.#ownCanvas(), bytes, this.network);
      this.#choose(bytes, file.name || "your picture", this.add);
      this.dialog.close();
    } catch (error) {
      if (!this.dialog.open) this.dialog.showModal();
      this.error.textContent = error.message;
    }
  }

  #ownCanvas() {
    const canvas = this.add.querySelector("canvas") ?? h("canvas", { class: "map" });
    this.add.replaceChildren(canvas);
    return canvas;
  }

  #choose(bytes, name, button) {
    this.#mark(button);
    this.onchoose(bytes, name);
  }

  #mark(button) {
    for (const other of [...this.buttons, this.add]) other.setAttribute("aria-pressed", other === button);
  }
}

/** Draw bytes, channel after channel, in their colours; other than one or three channels by the first, in grey. */
function drawBytes(canvas, bytes, { size, channels }) {
  Object.assign(canvas, { width: size, height: size });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(size, size);
  const area = size * size;
  for (let pixel = 0; pixel < area; pixel++) {
    for (let part = 0; part < 3; part++)
      picture.data[4 * pixel + part] = bytes[channels === 3 ? part * area + pixel : pixel];
    picture.data[4 * pixel + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}
