// Makes a smaller copy of a picture that is too large for the server, before it is sent.

const MAX_SIDE = 2048; // pixels of a copy; networks look at far fewer
const QUALITY = 0.92; // of JPEG
const MIN_SIDE = 256;

/** [width, height] of a picture in pixels; null if the browser cannot read it. */
function sizeOf(file) {
  return new Promise((resolve) => {
    const address = URL.createObjectURL(file);
    const image = new Image();
    const end = (size) => {
      URL.revokeObjectURL(address);
      resolve(size);
    };
    image.onload = () => end([image.naturalWidth, image.naturalHeight]);
    image.onerror = () => end(null);
    image.src = address;
  });
}

async function copyOf(file, [width, height], side) {
  const scale = Math.min(1, side / Math.max(width, height));
  const [resizeWidth, resizeHeight] = [width, height].map((each) =>
    Math.max(1, Math.floor(each * scale)),
  );
  const options = { resizeWidth, resizeHeight, resizeQuality: "high" };
  const bitmap = await createImageBitmap(file, options);
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [resizeWidth, resizeHeight];
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // under what is transparent
  context.fillRect(0, 0, resizeWidth, resizeHeight);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const data = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
  return new File([data], file.name, { type: "image/jpeg" });
}

/** The file, or a copy that fits the limits {bytes, pixels}; null if none can be made. */
export async function fitted(file, { bytes, pixels }) {
  const size = await sizeOf(file);
  if (!size) return file.size <= bytes ? file : null; // the server may be able to read it
  const [width, height] = size;
  if (file.size <= bytes && width * height <= pixels) return file;
  const allowed = Math.max(width, height) * Math.min(1, Math.sqrt(pixels / (width * height)));
  for (let side = Math.min(MAX_SIDE, Math.floor(allowed)); side >= MIN_SIDE; side /= 2) {
    const copy = await copyOf(file, size, side).catch(() => null);
    if (copy && copy.size <= bytes) return copy;
  }
  return null;
}
