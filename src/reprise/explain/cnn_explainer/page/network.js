/**
 * The network: its weights, its forward pass, and the parts that one value is made of.
 *
 * A column is what one layer computed: { layer, shape, values, before }. Maps have the shape [channels, side, side] and
 * lie channel after channel, row after row; vectors have the shape [length].
 */

import { bytesOf, setInside } from "./arrays.js";
import { simdOf } from "./simd.js";

/** The network from the JSON that the page carries; weights are 32-bit floats in base64. */
export function readNetwork(data) {
  const floats = new Float32Array(bytesOf(data.weights).buffer);
  const part = (place) => place && floats.subarray(place[0], place[0] + place[1]);
  const layers = data.layers.map((layer) => ({ ...layer, weight: part(layer.weight), bias: part(layer.bias) }));
  const shapes = [[data.channels, data.size, data.size]];
  for (const layer of layers) shapes.push(shapeAfter(layer, shapes.at(-1)));
  return {
    ...data,
    weights: null,
    layers,
    shapes,
    samples: data.samples.map(({ name, pixels }) => ({ name, pixels: bytesOf(pixels) })),
    simd: simdOf(layers, shapes),
  };
}

function shapeAfter(layer, shape) {
  if (layer.kind === "relu") return shape;
  if (layer.kind === "linear") return [layer.out];
  if (layer.kind === "flatten") return [shape[0] * shape[1] * shape[2]];
  const side = Math.floor((shape[1] + 2 * layer.padding - layer.kernel) / layer.stride) + 1;
  return [layer.kind === "conv" ? layer.out : shape[0], side, side];
}

/** Bytes 0..255, channel after channel, as the network takes them. */
export function normalise(network, bytes) {
  const area = network.size ** 2;
  const pixels = new Float32Array(bytes.length);
  for (let index = 0; index < bytes.length; index++) {
    const channel = Math.floor(index / area);
    pixels[index] = (bytes[index] / 255 - network.mean[channel]) / network.std[channel];
  }
  return pixels;
}

/** Run the network layer by layer and keep every output, the picture first, until it runs again. */
export function forward({ layers, shapes, simd }, pixels) {
  const input = { name: "input", label: "input", kind: "input" };
  const columns = [{ layer: input, shape: shapes[0], values: pixels, before: null }];
  layers.forEach((layer, index) => {
    const [before, shape] = [columns[index], shapes[index + 1]];
    const values = simd?.compute(layer, before, shape) ?? COMPUTE[layer.kind](layer, before, shape);
    columns.push({ layer, before, shape, values });
  });
  return columns;
}

/** What a layer makes of the column before it, in JavaScript. */
const COMPUTE = {
  conv(layer, { shape, values }, [, side]) {
    const planes = padded(values, shape[1], layer.padding);
    const result = new Float32Array(layer.out * side * side);
    const sums = new Float64Array(side); // of one row, so that they stay in the processor's cache
    for (let filter = 0; filter < layer.out; filter++) {
      for (let row = 0; row < side; row++) {
        sums.fill(layer.bias[filter]);
        for (let channel = 0; channel < layer.in; channel++) correlateRow(sums, planes, row, layer, filter, channel);
        result.set(sums, (filter * side + row) * side);
      }
    }
    return result;
  },

  relu(_, { values }) {
    const result = new Float32Array(values.length);
    for (let index = 0; index < values.length; index++) result[index] = values[index] < 0 ? 0 : values[index];
    return result;
  },

  pool(layer, { shape, values }, [channels, side]) {
    const result = new Float32Array(channels * side * side);
    for (let channel = 0; channel < channels; channel++) {
      const plane = planeOf(values, shape[1], channel);
      for (let row = 0; row < side; row++) {
        for (let col = 0; col < side; col++) {
          result[(channel * side + row) * side + col] = largest(plane, shape[1], row, col, layer);
        }
      }
    }
    return result;
  },

  flatten(layer, { shape: [channels, side], values }) {
    if (!layer.channelsLast) return values.slice();
    const result = new Float32Array(values.length);
    for (let channel = 0; channel < channels; channel++) {
      planeOf(values, side, channel).forEach((value, cell) => (result[cell * channels + channel] = value));
    }
    return result;
  },

  linear(layer, { values }) {
    const result = new Float32Array(layer.out);
    for (let neuron = 0; neuron < layer.out; neuron++) {
      let sum = layer.bias[neuron];
      const start = neuron * values.length;
      for (let index = 0; index < values.length; index++) sum += layer.weight[start + index] * values[index];
      result[neuron] = sum;
    }
    return result;
  },
};

/** One channel of maps, without a copy. */
export const planeOf = (values, side, channel) => values.subarray(channel * side * side, (channel + 1) * side * side);

/** The kernel between one input channel and one filter. */
export function kernelOf(layer, filter, channel) {
  const area = layer.kernel ** 2;
  const start = (filter * layer.in + channel) * area;
  return layer.weight.subarray(start, start + area);
}

/** All kernels of a filter, one after the other. */
export function kernelsOf(layer, filter) {
  const length = layer.in * layer.kernel ** 2;
  return layer.weight.subarray(filter * length, (filter + 1) * length);
}

/** Maps with their padding, in the precision that sums are made in: { values, width }. */
function padded(values, side, padding) {
  const width = side + 2 * padding;
  const result = new Float64Array((values.length / side ** 2) * width ** 2);
  setInside(result, values, side, padding);
  return { values: result, width };
}

/** Add a row of the correlation of an input channel with its kernel to `sums`. */
function correlateRow(sums, { values, width }, row, layer, filter, channel) {
  const { kernel, stride, weight } = layer;
  let tap = (filter * layer.in + channel) * kernel * kernel;
  let start = (channel * width + row * stride) * width;
  if (kernel === 3 && stride === 1) return correlateRow3(sums, values, width, start, weight, tap);
  for (let tapRow = 0; tapRow < kernel; tapRow++, start += width) {
    for (let tapCol = 0; tapCol < kernel; tapCol++, tap++) {
      const factor = weight[tap];
      let source = start + tapCol;
      for (let col = 0; col < sums.length; col++, source += stride) sums[col] += factor * values[source];
    }
  }
}

/** The same for 3x3 kernels at stride 1: all nine taps at once, so that every sum is read and written once. */
function correlateRow3(sums, values, width, top, weight, tap) {
  // Not by destructuring, which costs more than the sums here.
  const a = weight[tap], b = weight[tap + 1], c = weight[tap + 2];
  const d = weight[tap + 3], e = weight[tap + 4], f = weight[tap + 5];
  const g = weight[tap + 6], h = weight[tap + 7], i = weight[tap + 8];
  const middle = top + width, bottom = middle + width;
  let p = values[top], q = values[top + 1];
  let r = values[middle], s = values[middle + 1];
  let t = values[bottom], u = values[bottom + 1];
  for (let col = 0; col < sums.length; col++) {
    const x = values[top + 2 + col];
    const y = values[middle + 2 + col];
    const z = values[bottom + 2 + col];
    sums[col] = sums[col] + a * p + b * q + c * x + d * r + e * s + f * y + g * t + h * u + i * z;
    p = q;
    q = x;
    r = s;
    s = y;
    t = u;
    u = z;
  }
}

function largest(plane, width, row, col, { kernel, stride, padding }) {
  let found = -Infinity;
  for (let tapRow = 0; tapRow < kernel; tapRow++) {
    const y = row * stride + tapRow - padding;
    if (y < 0 || y >= width) continue;
    for (let tapCol = 0; tapCol < kernel; tapCol++) {
      const x = col * stride + tapCol - padding;
      if (x >= 0 && x < width && plane[y * width + x] > found) found = plane[y * width + x];
    }
  }
  return found;
}

/** For every number of a flatten column, where it lies among the maps: channel · side² + row · side + column. */
export function flattenOrder(layer, [channels, side]) {
  const area = side * side;
  return Array.from({ length: channels * area }, (_, index) =>
    layer.channelsLast ? (index % channels) * area + Math.floor(index / channels) : index,
  );
}

/** What each input channel adds to a convolution's map: one plane per channel; their sum and the bias are the map. */
export function intermediates(column, filter) {
  const { layer, before, shape } = column;
  const planes = padded(before.values, before.shape[1], layer.padding);
  return Array.from({ length: layer.in }, (_, channel) => {
    const result = new Float32Array(shape[1] ** 2);
    for (let row = 0; row < shape[1]; row++) {
      const sums = new Float64Array(shape[1]);
      correlateRow(sums, planes, row, layer, filter, channel);
      result.set(sums, row * shape[1]);
    }
    return result;
  });
}

/** The patch that an output cell of a convolution or a pool looks at; null stands for padding. */
export function patchAt(plane, width, row, col, { kernel, stride, padding }) {
  return Array.from({ length: kernel * kernel }, (_, index) => {
    const y = row * stride + Math.floor(index / kernel) - padding;
    const x = col * stride + (index % kernel) - padding;
    return y < 0 || x < 0 || y >= width || x >= width ? null : plane[y * width + x];
  });
}

/** Softmax of logits. The largest is taken off first, so that nothing overflows; the quotients are the same. */
export function softmax(logits) {
  const top = Math.max(...logits);
  const powers = Array.from(logits, (value) => Math.exp(value - top));
  const total = powers.reduce((sum, value) => sum + value, 0);
  return powers.map((value) => value / total);
}

/** The side of a convolution's output; null where the kernel's steps do not end at the border. */
export function widgetOutputSize(size, padding, kernel, stride) {
  const room = size + 2 * padding - kernel;
  return room >= 0 && room % stride === 0 ? room / stride + 1 : null;
}
