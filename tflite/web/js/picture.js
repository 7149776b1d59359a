import { Problem } from "./problem.js";

const stage = document.createElement("canvas");
// In memory: a GPU would round, and reading back from it is slow.
const stageContext = stage.getContext("2d", { willReadFrequently: true });

/**
 * Decodes a picture as people see it: upright, the first frame.
 *
 * Colour profiles are left aside, as Pillow does.
 *
 * @throws {Problem} it is none, or this browser does not know the format.
 */
export async function decodePicture(blob) {
  try {
    return await createImageBitmap(blob, {
      imageOrientation: "from-image",
      colorSpaceConversion: "none",
    });
  } catch {
    throw new Problem(
      `${blob.name ?? "This file"} is no picture that this browser can read.`,
    );
  }
}

/** The pixels of a bitmap or a video, on white where it is transparent. */
export function pixels(source) {
  const width = source.videoWidth ?? source.width;
  const height = source.videoHeight ?? source.height;
  try {
    stage.width = width;
    stage.height = height;
    stageContext.fillStyle = "white";
    stageContext.fillRect(0, 0, width, height);
    stageContext.drawImage(source, 0, 0);
    return stageContext.getImageData(0, 0, width, height);
  } catch {
    throw new Problem(
      `A picture of ${width} x ${height} pixels is too large for this browser.`,
    );
  }
}

/** Draws what the model sees, sharper than the model sees it. */
export function drawCentre(canvas, source, { width, height }) {
  const scale = Math.ceil(720 / Math.max(width, height));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const own = [
    source.videoWidth ?? source.width,
    source.videoHeight ?? source.height,
  ];
  const cover = Math.min(own[0] / width, own[1] / height);
  const [w, h] = [width * cover, height * cover];
  canvas.getContext("2d").drawImage(
    source, (own[0] - w) / 2, (own[1] - h) / 2, w, h,
    0, 0, canvas.width, canvas.height,
  );
}

/**
 * Starts a camera, on phones the one at the back.
 *
 * @returns {Promise<HTMLVideoElement>} playing.
 * @throws {Problem} there is none, or it is not allowed.
 */
export async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Problem("Browsers give the camera to https:// and localhost only.");
  }
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  try {
    video.srcObject = await navigator.mediaDevices.getUserMedia({
      video: {
        facingMode: "environment", width: { ideal: 640 }, height: { ideal: 480 },
      },
    });
  } catch (error) {
    throw new Problem({
      NotFoundError: "No camera was found.",
      NotAllowedError: "The camera was not allowed.",
      NotReadableError: "The camera is in use by another program.",
    }[error.name] ?? `The camera cannot be used: ${error.message}.`);
  }
  await video.play();
  return video;
}

export function closeCamera(video) {
  for (const track of video.srcObject.getTracks()) track.stop();
}
