"use strict";
/* Scales, ticks and marks of a scatter, as numbers and path data. Touches no element of the page. */
(() => {
  /* A scale from the ends of some values to pixels; `log` takes positive values only. */
  board.scale = (values, log, from, to) => {
    const way = log ? Math.log10 : (v) => v, back = log ? (v) => 10 ** v : (v) => v;
    let low = Infinity, high = -Infinity;
    for (const v of values) { const w = way(v); if (w < low) low = w; if (w > high) high = w; }
    if (low > high) [low, high] = log ? [0, 1] : [0, 1];
    const least = log ? 0.02 : Math.abs(high) * 0.002 || 0.5, room = Math.max((high - low) * 0.06, least);
    low -= room; high += room;
    const at = (v) => from + ((way(v) - low) / (high - low)) * (to - from);
    const ends = [back(low), back(high)];
    return { at, ends, ticks: (most) => (log ? logTicks(low, high, most) : ticks(...ends, most)) };
  };

  /* Round numbers between two, at most about `most` of them. */
  const ticks = (low, high, most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough);
    const ticks = [];
    for (let n = Math.ceil(low / step); n * step <= high; n++) ticks.push(Number((n * step).toPrecision(12)));
    return ticks;
  };

  /* Of a logarithmic scale, by its decades: powers of ten, with 2 and 5, or evenly spaced within less than one. */
  const logTicks = (low, high, most) => {
    if (high - low < 0.9) return ticks(10 ** low, 10 ** high, most);
    const decades = high - low, digits = decades * 3 <= most ? [1, 2, 5] : decades <= most ? [1] : null;
    const every = digits ? 1 : Math.ceil(decades / most), ticks = [];
    for (let power = Math.floor(low); power <= high; power += every)
      for (const digit of digits || [1]) {
        const value = Number((digit * 10 ** power).toPrecision(12));
        if (Math.log10(value) >= low && Math.log10(value) <= high) ticks.push(value);
      }
    return ticks;
  };

  /* Outlines about a point, one for each group of points, so that colour is not all that tells them apart. */
  const MARKS = [
    (x, y) => circle(x, y, 4.5),
    (x, y) => `M${x - 4} ${y - 4}h8v8h-8z`,
    (x, y) => `M${x} ${y - 5.5}l5.5 5.5l-5.5 5.5l-5.5 -5.5z`,
    (x, y) => `M${x} ${y - 5}l5 9h-10z`,
    (x, y) => `M${x - 1.6} ${y - 5}h3.2v3.4h3.4v3.2h-3.4v3.4h-3.2v-3.4h-3.4v-3.2h3.4z`,
    (x, y) => `M${x} ${y + 5}l5 -9h-10z`,
    (x, y) => `M${x - 5} ${y - 2.5}h10v5h-10z`,
    (x, y) => `M${x - 2.5} ${y - 5}h5v10h-5z`,
  ];
  const circle = (x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;
  const round = (v) => Math.round(v * 10) / 10;

  board.circle = circle;
  board.mark = (group, x, y) => MARKS[group](round(x), round(y));
  board.GROUPS = MARKS.length;

  /* From each point level to the next, then up or down to it: the best that a cost buys. */
  board.stairs = (places) => places.map(([x, y], n) => (n ? `H${round(x)}V${round(y)}` : `M${round(x)} ${round(y)}`)).join("");
})();
