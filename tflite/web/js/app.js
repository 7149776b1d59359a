import { readClassifier } from "./classifier.js";
import { beOffline } from "./offline.js";
import {
  closeCamera, decodePicture, drawCentre, openCamera, pixels,
} from "./picture.js";
import { Problem } from "./problem.js";
import { centreFit } from "./resize.js";
import { maxThreads, Session } from "./runtime.js";
import { best, encode, median } from "./tensors.js";

const TOP = 5;
const RUNS = 5; // of a picture; the median is shown
const FRAMES = 31; // of the camera; the same

const element = (id) => document.getElementById(id);
const [message, drop, view, bars, timing, models, threads] = [
  "message", "drop", "view", "bars", "timing", "model", "threads",
].map(element);

/** What the list of models offers: names, and how to get the bytes. */
const offered = new Map();
let file = null; // {name, bytes, facts, session}
let source = null; // the picture, or the camera's video
let camera = null;
let times = [];

// One thing at a time: a model is not closed while it runs.

let last = Promise.resolve();

function queue(work) {
  last = last.then(async () => {
    document.body.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      if (!(error instanceof Problem)) console.error(error);
      message.textContent = error.message;
      message.hidden = false;
    }
    document.body.setAttribute("aria-busy", "false");
  });
  return last;
}

/** For what a person has done: what was said before is no longer true. */
function act(work) {
  return queue(() => {
    message.hidden = true;
    return work();
  });
}

// The model.

function offer(name, size, load) {
  if (!offered.has(name)) {
    const shown = size < 1e6
      ? `${(size / 1e3).toFixed(0)} kB` : `${(size / 1e6).toFixed(1)} MB`;
    models.append(new Option(`${name} · ${shown}`, name));
  }
  offered.set(name, load);
}

async function listModels() {
  const response = await fetch("models.json").catch(() => null);
  const listed = response?.ok ? await response.json() : [];
  for (const { name, bytes } of listed) {
    offer(name, bytes, async () => {
      const answer = await fetch(`models/${encodeURIComponent(name)}`)
        .catch(() => null);
      if (answer?.ok) return new Uint8Array(await answer.arrayBuffer());
      throw new Problem(`${name} cannot be fetched. Is there a network?`);
    });
  }
  if (!listed.length) {
    element("best").textContent = "Open a .tflite file";
  }
}

async function openModel(name) {
  try {
    const bytes = await offered.get(name)();
    const facts = await readClassifier(bytes);
    await use({ name, bytes, facts });
  } finally {
    models.value = file?.name ?? "";
  }
  showFacts();
  await classify(RUNS);
}

async function openLocal(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  // Only what can be read gets into the list.
  await readClassifier(bytes);
  offer(blob.name, bytes.length, async () => bytes);
  await openModel(blob.name);
}

/** Puts a file into the place of the present one, which stays on failure. */
async function use(next) {
  const open = ({ bytes, facts }) =>
    Session.open(bytes, facts, Number(threads.value));
  file?.session.close();
  times = [];
  try {
    next.session = await open(next);
  } catch (error) {
    if (file) file.session = await open(file);
    throw error;
  }
  file = next;
}

function showFacts() {
  const { facts } = file;
  const { input, mean, std } = facts;
  const scaled = `(pixel − ${mean.join(", ")}) / ${std.join(", ")}`;
  let given = "as the file says: " + (input.type === "uint8"
    ? "pixels of 0 to 255" : scaled);
  if (facts.assumed) given = "pixels of 0 to 255 (assumed: the file does not say)";
  const rows = [
    ["Picture", `${facts.width} × ${facts.height}, ${input.type}`],
    ["Given", given],
    ["Classes", `${facts.labels.length}, ` + (facts.labelled
      ? "with names" : "the file has no names")],
  ];
  if (facts.name) rows.unshift(["Name", facts.name]);
  element("facts").replaceChildren(...rows.flatMap(([key, value]) => {
    const pair = [document.createElement("dt"), document.createElement("dd")];
    pair.forEach((cell, i) => { cell.textContent = [key, value][i]; });
    return pair;
  }));
  view.style.aspectRatio = `${facts.width} / ${facts.height}`;
}

// The picture.

async function openPicture(blob) {
  const picture = await decodePicture(blob);
  await stopCamera();
  source?.close?.();
  source = picture;
  await classify(RUNS);
}

/** Runs the model on what is in view, and shows what it says. */
async function classify(runs) {
  if (!source || !file) return;
  const { facts, session } = file;
  const started = performance.now();
  const picture = centreFit(pixels(source), facts.width, facts.height);
  const values = encode(picture, facts);
  const prepared = performance.now() - started;
  let scores;
  for (let run = 0; run < runs; run++) {
    const result = await session.run(values);
    scores = result.scores;
    times = [...times, result.milliseconds].slice(runs > 1 ? -runs : -FRAMES);
  }
  drawCentre(view, source, facts);
  drop.classList.remove("empty");
  showScores(scores, facts.labels);
  timing.textContent = `${median(times).toFixed(1)} ms a picture ` +
    `(median of ${times.length}), and ${prepared.toFixed(1)} ms to resize it`;
}

function showScores(scores, labels) {
  const likely = scores.every((score) => score > -0.01 && score < 1.01);
  const rows = best(scores, TOP);
  element("best").textContent = labels[rows[0].index];
  bars.replaceChildren(...rows.map(({ index, score }) => {
    const row = document.createElement("li");
    Object.assign(row.dataset, { index, score });
    const part = (name, text, parent = row) => {
      const span = document.createElement("div");
      span.className = name;
      span.textContent = text;
      parent.append(span);
      return span;
    };
    part("label", labels[index]).title = labels[index];
    part("score", likely ? `${(100 * score).toFixed(1)} %` : score.toFixed(2));
    if (likely) {
      const bar = part("bar", "", part("track", ""));
      bar.style.width = `${100 * Math.min(1, Math.max(0, score))}%`;
    }
    return row;
  }));
}

// The camera.

async function startCamera() {
  camera = await openCamera();
  source?.close?.();
  source = camera;
  times = [];
  showCamera();
  film(camera);
}

async function film(video) {
  while (camera === video) {
    await queue(() => camera === video && classify(1));
    await new Promise(requestAnimationFrame);
  }
}

async function stopCamera() {
  if (!camera) return;
  // What was last in view can still be given to other models.
  source = await createImageBitmap(camera);
  closeCamera(camera);
  camera = null;
  times = [];
  showCamera();
}

function showCamera() {
  const button = element("camera");
  button.setAttribute("aria-pressed", camera !== null);
  button.textContent = camera ? "Stop camera" : "Camera";
}

// What a person does.

function receive(blob) {
  if (!blob) return;
  const isModel = blob.name.endsWith(".tflite");
  act(() => (isModel ? openLocal(blob) : openPicture(blob)));
}

for (const id of ["picture", "file"]) {
  element(id).addEventListener("change", ({ target }) => {
    receive(target.files[0]);
    target.value = ""; // the same file may be chosen again
  });
}
element("choose").addEventListener("click", () => element("picture").click());
element("camera").addEventListener("click", () =>
  act(camera ? stopCamera : startCamera));
models.addEventListener("change", () => act(() => openModel(models.value)));
threads.addEventListener("change", () =>
  file && act(() => openModel(file.name)));

for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") receive(event.dataTransfer.files[0]);
  });
}

// The start.

act(async () => {
  await beOffline();
  for (let n = 1; n <= maxThreads; n++) threads.append(new Option(n, n));
  threads.value = Math.max(1, maxThreads >> 1);
  if (maxThreads === 1) {
    element("threads-note").textContent = crossOriginIsolated
      ? "" : "more need the page's headers (COOP, COEP)";
  }
  await listModels();
  const [first] = offered.keys();
  if (!first) return;
  await openModel(first);
  if (source) return;
  element("best").textContent = "Ready";
  timing.textContent = "Choose a picture, or start the camera.";
});
