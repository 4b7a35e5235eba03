// The folders of the dataset as a tree of checkboxes. A folder with others in it stands for all
// of them, and is written with a slash at its end.

import { el, icon } from "./dom.js";

const OPEN_FOLDERS = 8; // at the top, up to which the tree begins opened

/** The folders {name, images} as nested nodes {value, label, images, children}. */
export function treeOf(folders) {
  const root = { children: new Map() };
  for (const { name, images } of folders) {
    let node = root;
    const parts = name === "." ? ["."] : name.split("/");
    parts.forEach((label, i) => {
      const value = parts.slice(0, i + 1).join("/");
      if (!node.children.has(label))
        node.children.set(label, { value, label, images: 0, children: new Map() });
      node = node.children.get(label);
      node.images += images;
    });
  }
  const list = ({ children }) =>
    [...children.values()].map((node) => ({
      ...node,
      value: node.children.size ? `${node.value}/` : node.value,
      children: list(node),
    }));
  return list(root);
}

/** {node, show(chosen)}: `onChange(values)` gets the checked folders. */
export function folderTree(tree, onChange) {
  const boxes = [];
  const change = () =>
    onChange(boxes.filter(({ box }) => box.checked && !box.disabled).map(({ box }) => box.value));
  const branch = (node, above, open) => {
    const box = el("input", { type: "checkbox", value: node.value });
    box.addEventListener("change", change);
    const entry = { box, above };
    boxes.push(entry);
    const label = el(
      "label",
      { className: "choice", title: node.value },
      box,
      el("span", {}, node.label === "." ? "(top folder)" : node.label),
      " ",
      el("small", {}, node.images.toLocaleString("en")),
    );
    if (!node.children.length) return el("li", {}, label);
    const inside = el("ul", { hidden: !open }, ...node.children.map((each) => branch(each, entry, false)));
    const twig = el(
      "button",
      {
        type: "button",
        className: "twig",
        "aria-expanded": String(open),
        "aria-label": `Folders in ${node.label}`,
        onclick: () => {
          inside.hidden = !inside.hidden;
          twig.setAttribute("aria-expanded", String(!inside.hidden));
        },
      },
      icon("next"),
    );
    return el("li", {}, el("div", { className: "branch" }, twig, label), inside);
  };
  const open = tree.length <= OPEN_FOLDERS;
  const node = el("ul", { className: "tree choices" }, ...tree.map((each) => branch(each, null, open)));
  return { node, show: (chosen) => mark(boxes, new Set(chosen)) };
}

/** Check the chosen folders and what is in them; a folder with some chosen is half checked. */
function mark(boxes, chosen) {
  for (const { box, above } of boxes) {
    box.disabled = Boolean(above && (above.box.disabled || above.box.checked));
    box.checked = box.disabled || chosen.has(box.value);
    box.indeterminate =
      !box.checked && [...chosen].some((value) => box.value.endsWith("/") && value.startsWith(box.value));
  }
}
