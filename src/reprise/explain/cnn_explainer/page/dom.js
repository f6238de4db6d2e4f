/** The few helpers that every view needs: making elements, writing numbers, asking for the reader's wishes. */

/**
 * Make an element: h("button", { class: "x", onclick: close, hidden: true }, "Close").
 * Functions become event listeners; false, null and undefined attributes are left out.
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** A number for the eye: fixed digits and a true minus sign. Never compute with it. */
export function format(value, digits = 2) {
  const text = value.toFixed(digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "\u2212");
}

/** Whether the reader asked for less motion. Asked anew each time: the wish can change while the page is open. */
export const wantsStillness = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** A colour of the style sheet, as the current theme has it. */
export const themeColour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Give a canvas the resolution of the screen and return its context in CSS pixels. */
export function sharpContext(canvas, width, height) {
  const ratio = globalThis.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(ratio, ratio);
  return context;
}
