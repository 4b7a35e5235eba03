// A ZIP file of files as they are: pictures are compressed already.

const TABLE = new Uint32Array(256).map((_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});
const UTF8_NAMES = 0x0800;
const VERSION = 20;

function checksum(data) {
  let sum = 0xffffffff;
  for (const byte of data) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

/** Little-endian bytes of [value, size] pairs. */
function record(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [, size]) => sum + size, 0)));
  let at = 0;
  for (const [value, size] of fields) {
    if (size === 4) view.setUint32(at, value, true);
    else view.setUint16(at, value, true);
    at += size;
  }
  return new Uint8Array(view.buffer);
}

/** Time and date as DOS has them. */
function dosTime(when) {
  const time = (when.getHours() << 11) | (when.getMinutes() << 5) | (when.getSeconds() >> 1);
  const date = ((when.getFullYear() - 1980) << 9) | ((when.getMonth() + 1) << 5) | when.getDate();
  return [time, date];
}

/** A name that stays below the folder that the ZIP is unpacked in. */
const safe = (name) =>
  name
    .split(/[/\\]/)
    .filter((part) => part && part !== "." && part !== "..")
    .join("/");

/** A blob of {name, data: Uint8Array} files. */
export function zip(files, when = new Date()) {
  const [time, date] = dosTime(when);
  const content = [];
  const directory = [];
  let offset = 0;
  for (const { name, data } of files) {
    const bytes = new TextEncoder().encode(safe(name));
    const facts = [
      [VERSION, 2], [UTF8_NAMES, 2], [0, 2], [time, 2], [date, 2],
      [checksum(data), 4], [data.length, 4], [data.length, 4], [bytes.length, 2], [0, 2],
    ];
    const head = record([0x04034b50, 4], ...facts);
    content.push(head, bytes, data);
    directory.push(
      record([0x02014b50, 4], [VERSION, 2], ...facts, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]),
      bytes,
    );
    offset += head.length + bytes.length + data.length;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  const count = [files.length, 2];
  const end = record([0x06054b50, 4], [0, 2], [0, 2], count, count, [size, 4], [offset, 4], [0, 2]);
  return new Blob([...content, ...directory, end], { type: "application/zip" });
}
