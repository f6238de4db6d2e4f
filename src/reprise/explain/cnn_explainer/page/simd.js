/**
 * Layers in the SIMD instructions of WebAssembly, many times as fast as in JavaScript; simd.c has the arithmetic.
 *
 * What these layers read and write lies in one memory, laid out once. Nothing is copied on the way from one layer to
 * the next, and what they make stays until they compute the next picture.
 */

import { bytesOf, setInside } from "./arrays.js";
import { MODULE } from "./simd_module.js";

const FILTERS = 5; // the fewest that simd.c computes; those that are missing get weights of zero
const SIDE = 4; // the smallest of what it makes
const BLOCK = 65536; // bytes, the unit of a memory's size

const TAKES = {
  conv: ({ stride }) => stride === 1,
  relu: () => true,
  pool: ({ kernel, stride, padding }) => kernel === 2 && stride === 2 && padding === 0,
};

const CALL = {
  conv: ({ conv }, { kernel, padding }, { filters, weight, bias, output }, input, channels, side) =>
    conv(input, side + 2 * padding, channels, weight, bias, kernel, output, filters),
  relu: ({ relu }, _, { output }, input, channels, side) => relu(input, output, channels * side * side),
  pool: ({ pool }, _, { output }, input, channels, side) => pool(input, side, output, channels),
};

/**
 * What computes layers of a network here; null where the browser cannot, or where the page's policy forbids it.
 * @param {Array<number[]>} shapes of the network's input and of what each layer makes
 */
export function simdOf(layers, shapes) {
  try {
    return new Simd(layers, shapes);
  } catch {
    return null;
  }
}

class Simd {
  constructor(layers, shapes) {
    let end = 0;
    const allot = (length) => (end += 4 * length) - 4 * length; // the address of room for that many numbers
    this.places = new Map();
    layers.forEach((layer, index) => {
      const [[channels, before], [maps, side]] = [shapes[index], shapes[index + 1]];
      if (!(side >= SIDE && TAKES[layer.kind](layer))) return; // vectors have no side
      const filters = Math.max(maps, FILTERS);
      const isHere = this.places.has(layers[index - 1]) && layer.padding === 0;
      this.places.set(layer, {
        filters,
        input: isHere ? null : allot(channels * (before + 2 * layer.padding) ** 2),
        weight: allot(layer.weight ? filters * channels * layer.kernel ** 2 : 0),
        bias: allot(layer.bias ? filters : 0),
        output: allot(filters * side ** 2),
      });
    });
    this.memory = new WebAssembly.Memory({ initial: Math.floor(end / BLOCK) + 1 });
    for (const [{ weight, bias }, place] of this.places) {
      if (weight) this.#at(place.weight, weight.length).set(weight);
      if (bias) this.#at(place.bias, bias.length).set(bias);
    }
    const module = new WebAssembly.Module(bytesOf(MODULE));
    this.functions = new WebAssembly.Instance(module, { env: { memory: this.memory } }).exports;
  }

  #at(address, length) {
    return new Float32Array(this.memory.buffer, address, length);
  }

  /** What a layer makes of a column, as a view of the memory; null where JavaScript has to compute it. */
  compute(layer, { shape: [channels, side], values }, [maps, sideAfter]) {
    const place = this.places.get(layer);
    if (!place) return null;
    let input = values.byteOffset;
    if (place.input !== null) {
      input = place.input;
      setInside(this.#at(input, channels * (side + 2 * layer.padding) ** 2), values, side, layer.padding);
    }
    CALL[layer.kind](this.functions, layer, place, input, channels, side);
    return this.#at(place.output, maps * sideAfter ** 2);
  }
}
