// Runs the page's parts that need no browser, for test_web_parts.py:
//   node web_parts.mjs PAGE FOLDER
// does what FOLDER/tasks.json lists and writes FOLDER/results.json.

import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [page, folder] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(path.join(page, "js", name)));
const { readClassifier } = await load("classifier.js");
const { centreFit } = await load("resize.js");
const { encode } = await load("tensors.js");
const read = (name) => new Uint8Array(fs.readFileSync(path.join(folder, name)));

const tasks = {
  fit({ picture, width, height, to }) {
    const data = new Uint8ClampedArray(read(picture));
    return [...centreFit({ data, width, height }, ...to)];
  },
  describe: ({ file }) => readClassifier(read(file)),
  async encode({ file, rgb }) {
    const facts = await readClassifier(read(file));
    return [...encode(Uint8Array.from(rgb), facts)];
  },
};

const results = [];
for (const { task, ...given } of JSON.parse(fs.readFileSync(
  path.join(folder, "tasks.json"),
))) {
  try {
    results.push(await tasks[task](given));
  } catch (error) {
    results.push({ error: `${error.constructor.name}: ${error.message}` });
  }
}
fs.writeFileSync(path.join(folder, "results.json"), JSON.stringify(results));
