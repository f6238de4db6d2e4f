/*
 * The layers of the page that cost most, in the SIMD instructions of WebAssembly. simd.js lays out the memory that all
 * pointers go into, and calls them. Maps lie channel after channel, row after row, as in network.js.
 *
 * simd_module.js holds the compiled module. After a change make it anew, in this folder, with clang and lld 14:
 *
 *   clang --target=wasm32 -O2 -msimd128 -nostdlib -o /dev/stdout simd.c \
 *     -Wl,--no-entry,--import-memory,--strip-all,-z,stack-size=0 | base64 -w 0 |
 *     xargs printf '// Made from simd.c, which says how.\n\nexport const MODULE =\n  "%s";\n' > simd_module.js
 */

#include <wasm_simd128.h>

#define EXPORT(name) __attribute__((export_name(#name))) void name
#define MAPS 5 /* computed together: with two rows of four columns they fill the registers */
#define COLUMNS 4

typedef const float *Floats;

static inline int least(int a, int b) { return a < b ? a : b; }

/* Two rows of COLUMNS columns in each of MAPS maps. Each map has `taps` weights; `side` is that of the output. */
static inline __attribute__((always_inline)) void tile(Floats input, int width, int channels, Floats weight, int taps,
                                                       Floats bias, int kernel, float *output, int side) {
  v128_t upper[MAPS], lower[MAPS];
  for (int map = 0; map < MAPS; map++) upper[map] = lower[map] = wasm_v128_load32_splat(bias + map);
  for (int channel = 0; channel < channels; channel++, input += width * (width - kernel))
    for (int row = 0; row < kernel; row++, input += width)
      for (int col = 0; col < kernel; col++, weight++) {
        v128_t above = wasm_v128_load(input + col), below = wasm_v128_load(input + col + width);
#pragma unroll
        for (int map = 0; map < MAPS; map++) {
          v128_t factor = wasm_v128_load32_splat(weight + map * taps);
          upper[map] = wasm_f32x4_add(upper[map], wasm_f32x4_mul(factor, above));
          lower[map] = wasm_f32x4_add(lower[map], wasm_f32x4_mul(factor, below));
        }
      }
  for (int map = 0; map < MAPS; map++, output += side * side) {
    wasm_v128_store(output, upper[map]);
    wasm_v128_store(output + side, lower[map]);
  }
}

/*
 * A convolution of stride 1 without padding, of at least MAPS filters and COLUMNS columns. Where sizes are no multiples
 * of a tile's, the last tile lies in part over the one before, here as in the functions below.
 */
EXPORT(conv)(Floats input, int width, int channels, Floats weight, Floats bias, int kernel, float *output,
             int filters) {
  int side = width - kernel + 1, taps = channels * kernel * kernel;
  for (int filter = 0; filter < filters; filter += MAPS) {
    int map = least(filter, filters - MAPS);
    for (int row = 0; row < side; row += 2)
      for (int col = 0; col < side; col += COLUMNS) {
        int y = least(row, side - 2), x = least(col, side - COLUMNS);
        tile(input + y * width + x, width, channels, weight + map * taps, taps, bias + map, kernel,
             output + (map * side + y) * side + x, side);
      }
  }
}

EXPORT(relu)(Floats input, float *output, int length) {
  for (int index = 0; index < length; index += 4) {
    int i = least(index, length - 4);
    wasm_v128_store(output + i, wasm_f32x4_pmax(wasm_v128_load(input + i), wasm_f32x4_splat(0)));
  }
}

/* The largest of each patch of 2x2, at stride 2. */
EXPORT(pool)(Floats input, int width, float *output, int channels) {
  int side = width / 2;
  for (int row = 0; row < channels * side; row++, output += side) {
    Floats upper = input + (row / side * width + row % side * 2) * width, lower = upper + width;
    for (int col = 0; col < side; col += COLUMNS) {
      int x = least(col, side - COLUMNS);
      v128_t left = wasm_f32x4_pmax(wasm_v128_load(upper + 2 * x), wasm_v128_load(lower + 2 * x));
      v128_t right = wasm_f32x4_pmax(wasm_v128_load(upper + 2 * x + 4), wasm_v128_load(lower + 2 * x + 4));
      v128_t even = wasm_i32x4_shuffle(left, right, 0, 2, 4, 6), odd = wasm_i32x4_shuffle(left, right, 1, 3, 5, 7);
      wasm_v128_store(output + x, wasm_f32x4_pmax(even, odd));
    }
  }
}
