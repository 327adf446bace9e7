"use strict";
/* Compute scales, ticks and marks of a scatter plot as numbers and path data. No access to the DOM. */
(() => {
  /* Map the range of the values to pixels; `log` takes positive values only. */
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

  /* Return about `most` round numbers of a range. */
  const ticks = (low, high, most) => {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough);
    const values = [];
    for (let n = Math.ceil(low / step); n * step <= high; n++) values.push(Number((n * step).toPrecision(12)));
    return values;
  };

  /* Return ticks of a log scale: powers of ten, with 2 and 5, or evenly spaced within one decade. */
  const logTicks = (low, high, most) => {
    if (high - low < 0.9) return ticks(10 ** low, 10 ** high, most);
    const decades = high - low, digits = decades * 3 <= most ? [1, 2, 5] : decades <= most ? [1] : null;
    const every = digits ? 1 : Math.ceil(decades / most), values = [];
    for (let power = Math.floor(low); power <= high; power += every)
      for (const digit of digits || [1]) {
        const value = Number((digit * 10 ** power).toPrecision(12));
        if (Math.log10(value) >= low && Math.log10(value) <= high) values.push(value);
      }
    return values;
  };

  /* Outlines of marks, one a group, so that groups differ in more than colour. */
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

  /* Draw the Pareto front as steps: level to the next point, then up or down. */
  board.stairs = (places) => places.map(([x, y], n) => (n ? `H${round(x)}V${round(y)}` : `M${round(x)} ${round(y)}`)).join("");
})();
