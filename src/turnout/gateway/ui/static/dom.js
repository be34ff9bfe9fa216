// This module makes elements. Text is always text: nothing that came from a request is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export function at(id) {
  return document.getElementById(id);
}

export function put(parent, ...children) {
  parent.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

// A number on the page: its text for people, its value for whoever checks it against the ledger.
export function number(key, value, text, attributes = {}) {
  return make("span", { "data-key": key, "data-value": JSON.stringify(value ?? null), text, ...attributes });
}

// A model keeps its colour for as long as the pool stays the same.
let pool = [];
export function setPool(names) {
  pool = names;
}
export function hue(name) {
  if (name === "") return "none";
  const place = pool.indexOf(name);
  return String((place < 0 ? pool.length : place) % 8);
}
export function swatch(name) {
  return make("i", { class: "swatch", "data-hue": hue(name), "aria-hidden": "true" });
}
