// Axes: from values to places, with round numbers for ticks.

export function scale(low, high, start, end) {
  const span = high - low || 1;
  return (value) => start + ((value - low) / span) * (end - start);
}

// Round numbers between two ends, about `wanted` of them.
export function ticks(low, high, wanted) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const raw = span / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= raw);
  const out = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-9; value += step) out.push(value);
  return out;
}

const UNITS = [
  1e3, 5e3, 15e3, 6e4, 3e5, 9e5, 18e5, 36e5, 108e5, 216e5, 432e5, 864e5, 2 * 864e5, 7 * 864e5, 14 * 864e5, 28 * 864e5,
  91 * 864e5, 365 * 864e5,
];

// Moments between two ends that a clock would name.
export function timeTicks(low, high, wanted) {
  const step = UNITS.find((one) => (high - low) / one <= wanted) ?? UNITS[UNITS.length - 1];
  const offset = new Date(low).getTimezoneOffset() * 6e4;
  const out = [];
  for (let at = Math.ceil((low - offset) / step) * step + offset; at <= high; at += step) out.push(at);
  return out.length > 1 ? out : [low, high];
}

// The ends of what is drawn over time. Clocks are their owners': a few that are far behind do not squeeze the rest.
export function timeSpan(values) {
  const sorted = values.filter((value) => Number.isFinite(value)).sort((a, b) => a - b);
  if (!sorted.length) return [0, 1];
  const high = sorted[sorted.length - 1];
  const early = sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length / 50))];
  const low = Math.max(sorted[0], early - (high - early) / 2);
  return high > low ? [low, high] : [low - 1, high + 1];
}

export function timeText(at, span) {
  const date = new Date(at);
  if (Number.isNaN(date.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  if (span < 5 * 6e4) return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
  const day = `${date.getDate()} ${date.toLocaleString("en", { month: "short" })}`;
  if (span > 20 * 864e5) return day;
  const clock = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return span > 2 * 864e5 || clock === "00:00" ? `${day} ${clock === "00:00" ? "" : clock}`.trim() : clock;
}
