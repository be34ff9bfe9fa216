// This module writes numbers the way people read them. Unknown is a dash, and never 0.

export const UNKNOWN = "\u2013";
// Narrow, and no place to break a line.
const THIN = "\u202f";

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

export function count(value) {
  return value === null || value === undefined ? UNKNOWN : whole.format(value);
}

export function usd(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value === 0) return "$0";
  const size = Math.abs(value);
  if (size < 1e-7) return "<$0.0000001";
  if (size >= 1000) return "$" + whole.format(value);
  if (size >= 1) return "$" + value.toFixed(2);
  return "$" + value.toFixed(Math.min(9, 2 - Math.floor(Math.log10(size))));
}

// For the marks of an axis, which are round numbers.
export function roundUsd(value) {
  return "$" + (value >= 1 ? whole.format(value) : String(Number(value.toPrecision(2))));
}

export function seconds(value) {
  if (value === null || value === undefined) return UNKNOWN;
  if (value < 1e-3) return Math.round(value * 1e6) + THIN + "\u00b5s";
  if (value < 0.01) return Number((value * 1e3).toFixed(1)) + THIN + "ms";
  if (value < 1) return Math.round(value * 1e3) + THIN + "ms";
  if (value < 60) return value.toFixed(value < 10 ? 2 : 1) + THIN + "s";
  if (value >= 5400) return Number((value / 3600).toPrecision(3)) + THIN + "h";
  const rest = Math.round(value % 60);
  return Math.floor(value / 60) + THIN + "min" + (rest ? " " + rest + THIN + "s" : "");
}

export function share(value) {
  if (value === null || value === undefined) return UNKNOWN;
  const percent = value * 100;
  const size = Math.abs(percent);
  const digits = size !== 0 && size < 10 ? 1 : 0;
  return (percent < 0 ? "\u2212" : "") + size.toFixed(digits) + THIN + "%";
}

// How often something happens, in the unit that gives a number people can picture.
export function rate(perSecond) {
  const [unit, length] = [["second", 1], ["minute", 60], ["hour", 3600], ["day", 86400]].find(([, size]) => perSecond * size >= 1) ?? ["day", 86400];
  const value = perSecond * length;
  return `${value < 10 ? value.toPrecision(2) : whole.format(value)} a ${unit}`;
}

export function quality(value) {
  return value === null || value === undefined ? UNKNOWN : value.toFixed(3).replace("-", "\u2212");
}

export function clock(time, withDate) {
  const at = new Date(time * 1000);
  const hours = at.toLocaleTimeString("en-GB");
  return withDate ? at.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) + " " + hours : hours;
}
