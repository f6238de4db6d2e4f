/** Arrays of numbers: as the page carries them, and inside a border. */

export function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Copy maps into the middle of larger ones, whose border of `padding` stays as it is. */
export function setInside(target, values, side, padding) {
  if (padding === 0) return target.set(values);
  const width = side + 2 * padding;
  for (let row = 0; row < values.length / side; row++) {
    const start = (Math.floor(row / side) * width + (row % side) + padding) * width; // of a row of the larger maps
    target.set(values.subarray(row * side, (row + 1) * side), start + padding);
  }
}
