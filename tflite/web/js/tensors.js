/**
 * Turns RGB bytes into what a model's input takes.
 *
 * @param {Uint8Array} rgb pixels of the model's size.
 * @param facts what `readClassifier` gives.
 * @returns {Uint8Array | Float32Array}
 */
export function encode(rgb, { input, mean, std }) {
  // uint8 is for pixels as they are; other readers of TFLite files agree.
  if (input.type === "uint8") return rgb;
  const values = new Float32Array(rgb.length);
  for (let i = 0; i < rgb.length; i++) {
    values[i] = (rgb[i] - (mean[i % 3] ?? mean[0])) / (std[i % 3] ?? std[0]);
  }
  return values;
}

/** Returns the scores that the values of an output stand for. */
export function decode(values, { output }) {
  if (output.type === "float32") return values;
  return Float32Array.from(values, (value) =>
    (value - output.zeroPoint) * output.scale);
}

/** The best classes, best first; of equal scores the lower class. */
export function best(scores, count) {
  return Array.from(scores, (score, index) => ({ score, index }))
    .sort((a, b) => b.score - a.score || a.index - b.index)
    .slice(0, count);
}

export function median(numbers) {
  return [...numbers].sort((a, b) => a - b)[numbers.length >> 1];
}
