// What was chosen for each group of duplicates: which picture stays, which go, which are no
// duplicates. Kept in the browser for one version of the library. Sends nothing.

const PREFIX = "duplicates ";

let key = "";
let chosen = {}; // group number: {keep, stay: [rows], apart: [rows], alone}

/** Open the choices for a version of the library; those for other versions are dropped. */
export function open(version) {
  key = PREFIX + version;
  try {
    for (const name of Object.keys(localStorage))
      if (name.startsWith(PREFIX) && name !== key) localStorage.removeItem(name);
    chosen = JSON.parse(localStorage.getItem(key)) ?? {};
  } catch {
    chosen = {}; // storage is disabled, or was edited
  }
}

function store() {
  try {
    localStorage.setItem(key, JSON.stringify(chosen));
  } catch {
    // storage is disabled or full: the choices last until the page closes
  }
}

/** {keep, stay, apart, alone} of a group. */
export function of({ group, images }) {
  const rows = new Set(images.map(({ row }) => row));
  const given = chosen[group] ?? {};
  const known = (list) => (list ?? []).filter((row) => rows.has(row));
  return {
    keep: rows.has(given.keep) ? given.keep : images[0].row,
    stay: known(given.stay),
    apart: known(given.apart),
    alone: Boolean(given.alone),
  };
}

/** Change what was chosen for a group. */
export function change(group, changes) {
  chosen[group.group] = { ...of(group), rows: group.images.map(({ row }) => row), ...changes };
  store();
}

/** Whether an image of a group may go, as far as the page knows. */
export function goes(group, image) {
  const { keep, stay, apart, alone } = of(group);
  if (alone || image.row === keep || stay.includes(image.row) || apart.includes(image.row))
    return false;
  return keep === group.images[0].row ? image.goes : true;
}

/** {copies, bytes}: by how much the choices change the plan of a group. */
export function changeOf(group) {
  const sum = (images) => images.reduce((total, { bytes }) => total + (bytes ?? 0), 0);
  const before = group.images.filter((image) => image.goes);
  const after = group.images.filter((image) => goes(group, image));
  return { copies: after.length - before.length, bytes: sum(after) - sum(before) };
}

/** The choices as the server takes them: {choices, not_duplicates}. */
export function request() {
  const entries = Object.entries(chosen);
  return {
    choices: entries.map(([group, { keep, rows, stay, apart, alone }]) => ({
      group: Number(group),
      keep,
      extras: alone ? [] : rows.filter((row) => ![keep, ...stay, ...apart].includes(row)),
    })),
    not_duplicates: entries.flatMap(([, { keep, apart }]) => apart.map((row) => [keep, row])),
  };
}

/** Drop the pairs that the server has remembered. */
export function forgetPairs() {
  for (const [group, each] of Object.entries(chosen)) {
    if (each.apart.length) delete chosen[group];
  }
  store();
}
