const BITS = 22;
const HALF = 1 << (BITS - 1);

/**
 * Brings a picture to the size of a model as its evaluation in Python does.
 *
 * It is resized with its proportions kept until it just covers the size
 * (bilinear with antialiasing), and the centre is cut out. The arithmetic,
 * fixed-point weights and 8 bits between the two passes, is Pillow's: the
 * pixels are the same, bit for bit.
 *
 * @param {{data: Uint8ClampedArray, width: number, height: number}} picture
 *   RGBA, opaque, as ImageData has it.
 * @returns {Uint8Array} RGB, (height, width, 3).
 */
export function centreFit(picture, width, height) {
  const scale = Math.max(width / picture.width, height / picture.height);
  const wide = Math.max(width, roundHalfEven(picture.width * scale));
  const high = Math.max(height, roundHalfEven(picture.height * scale));
  const across = taps(picture.width, wide, (wide - width) >> 1, width);
  const along = taps(picture.height, high, (high - height) >> 1, height);
  // To the width, and only the rows that the second pass reads ...
  const top = along[0].first;
  const { first, weights } = along[height - 1];
  const rows = new Uint8Array(3 * width * (first + weights.length - top));
  for (let row = 0; 3 * width * row < rows.length; row++) {
    const start = 4 * picture.width * (top + row);
    blend(picture.data, start, 4, across, rows, 3 * width * row, 3);
  }
  // ... and to the height, column by column.
  const result = new Uint8Array(3 * width * height);
  for (let column = 0; column < width; column++) {
    const start = 3 * (column - width * top);
    blend(rows, start, 3 * width, along, result, 3 * column, 3 * width);
  }
  return result;
}

/** One line of a pass: pixels `from` + i `step` go to `to` + j `toStep`. */
function blend(source, from, step, line, target, to, toStep) {
  let write = to;
  for (const { first, weights } of line) {
    let read = from + step * first;
    // The weights sum up to 1, so that nothing needs clipping.
    let red = HALF;
    let green = HALF;
    let blue = HALF;
    for (const weight of weights) {
      red += weight * source[read];
      green += weight * source[read + 1];
      blue += weight * source[read + 2];
      read += step;
    }
    target[write] = red >> BITS;
    target[write + 1] = green >> BITS;
    target[write + 2] = blue >> BITS;
    write += toStep;
  }
}

/**
 * Which pixels of a line, and how much of each, make up the pixels `from`
 * until `from + count` of the line resized from `size` to `newSize`: a
 * triangle as wide as the reduction.
 */
function taps(size, newSize, from, count) {
  const scale = size / newSize;
  const support = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = (from + i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const parts = Array.from({ length: end - first }, (_, tap) =>
      Math.max(0, 1 - Math.abs((first + tap + 0.5 - centre) / support)));
    const sum = parts.reduce((a, b) => a + b, 0);
    const fixed = (part) => Math.trunc(part / sum * (1 << BITS) + 0.5);
    return { first, weights: Int32Array.from(parts, fixed) };
  });
}

/** As Python rounds. */
function roundHalfEven(value) {
  const down = Math.floor(value);
  if (value - down === 0.5) return down + (down % 2);
  return Math.round(value);
}
