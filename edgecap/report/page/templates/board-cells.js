"use strict";
/* Hold the cells as columns of numbers; filter, sort and rank them. No access to the DOM. */
const board = {};

(() => {
  const FACETS = ["model", "device", "provider", "precision", "tokenizer", "outcome", "text"];
  const ASSUMED = "assumed";

  /* Prepare the sent data once: numbers (NaN where absent) and the text to search. */
  board.read = (sent) => {
    const { cells, names, records } = sent;
    const columns = sent.values.map((v) => Float64Array.from(v.value, (x) => (x === null ? NaN : x)));
    const at = Object.fromEntries(sent.figures.map((f, i) => [f.name, i]));
    const haystack = cells.model.map((model, i) => [
      names.model[model], names.device[cells.device[i]], names.processor[cells.device[i]], names.provider[cells.provider[i]],
      names.precision[cells.precision[i]], names.outcome[cells.outcome[i]], records[cells.record[i]].name,
    ].join("\n").toLowerCase());
    const assumed = Uint8Array.from(cells.joules, (j) => (j >= 0 && sent.reasons[j].startsWith(ASSUMED) ? 1 : 0));
    const ofJoules = sent.figures.map((f) => f.name.endsWith("_j"));
    return { ...sent, columns, at, haystack, assumed, ofJoules, size: cells.model.length };
  };

  /* Return the rows that pass every filter, and how many rows each word of a facet would leave. */
  board.filtered = (data, state) => {
    const allowed = FACETS.map((facet) => mask(data.names[facet], state.facets[facet]));
    const counts = FACETS.map((facet) => new Uint32Array(data.names[facet].length));
    const cells = FACETS.map((facet) => data.cells[facet]);
    const words = state.search.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    for (let i = 0; i < data.size; i++) {
      if (state.latest && !data.cells.latest[i]) continue;
      if (!words.every((word) => data.haystack[i].includes(word))) continue;
      let stopped = 0, by = -1;
      for (let f = 0; f < FACETS.length; f++) if (!allowed[f][cells[f][i]]) { stopped++; by = f; }
      if (stopped === 0) { rows.push(i); for (let f = 0; f < FACETS.length; f++) counts[f][cells[f][i]]++; }
      else if (stopped === 1) counts[by][cells[by][i]]++;
    }
    return { rows, counts: Object.fromEntries(FACETS.map((facet, f) => [facet, counts[f]])) };
  };

  /* Return the chosen words of a facet, or all if none is chosen. */
  const mask = (names, chosen) => Uint8Array.from(names, (name) => (chosen.size === 0 || chosen.has(name) ? 1 : 0));

  /* Sort rows by a column: missing numbers last, ties newest first. */
  board.sorted = (data, rows, column, down) => {
    const keys = board.keys(data, column), sign = down ? -1 : 1;
    return rows.slice().sort((a, b) => {
      const x = keys[a], y = keys[b];
      if (x === y) return a - b;
      if (Number.isNaN(x)) return Number.isNaN(y) ? a - b : 1;
      return Number.isNaN(y) ? -1 : sign * (x - y);
    });
  };

  /* Return the sort key of each row: the number, or the rank of its word. */
  board.keys = (data, column) => {
    if (column in data.at) return data.columns[data.at[column]];
    const words = column === "created" ? data.records.map((r) => r.created) : data.names[column];
    const order = words.map((_, i) => i).sort((a, b) => words[a].localeCompare(words[b], "en", { numeric: true }));
    const places = new Float64Array(words.length);
    order.forEach((word, place) => { places[word] = place > 0 && words[word] === words[order[place - 1]] ? places[order[place - 1]] : place; });
    const cells = column === "created" ? data.cells.record : data.cells[column];
    return Float64Array.from(cells, (word) => places[word]);
  };

  /* Return false for assumed joules, which cannot be best. */
  const fair = (data, figure, i) => !(data.assumed[i] && data.ofJoules[figure]);
  board.fair = fair;

  /* Return the number of the text of each row, and of its tokenizer where the figures compare only within one. */
  const comparable = (data, figures) => {
    const { text, tokenizer } = data.cells, many = data.names.tokenizer.length;
    return figures.some((n) => data.figures[n].within.includes("tokenizer")) ? text.map((t, i) => t * many + tokenizer[i]) : text;
  };

  /* Return the best row of each text, device and model by a metric. */
  board.best = (data, rows, figure) => {
    const values = data.columns[figure], sign = data.figures[figure].less ? 1 : -1, best = new Map();
    const { device, model } = data.cells, text = comparable(data, [figure]), models = data.names.model.length, devices = data.names.device.length;
    for (const i of rows) {
      if (Number.isNaN(values[i]) || !fair(data, figure, i)) continue;
      const key = (text[i] * devices + device[i]) * models + model[i], other = best.get(key);
      if (other === undefined || sign * (values[i] - values[other]) < 0) best.set(key, i);
    }
    return new Set(best.values());
  };

  /* Return rows with numbers on both axes, positive on the horizontal axis and on any other log axis. */
  board.drawable = (data, rows, across, up) => {
    const x = data.columns[across], y = data.columns[up], { log } = data.figures[up];
    return rows.filter((i) => x[i] > 0 && (log ? y[i] > 0 : !Number.isNaN(y[i])));
  };

  /* Return the Pareto front of each text (and tokenizer where these compare only within one), by rising cost. */
  board.fronts = (data, rows, across, up) => {
    const x = data.columns[across], sign = data.figures[up].less ? 1 : -1, texts = comparable(data, [across, up]), byText = new Map();
    for (const i of rows) {
      if (!fair(data, across, i) || !fair(data, up, i)) continue;
      const text = texts[i];
      if (!byText.has(text)) byText.set(text, []);
      byText.get(text).push(i);
    }
    const y = Float64Array.from(data.columns[up], (value) => sign * value);
    return [...byText.values()].map((group) => undominated(group, x, y));
  };

  const undominated = (rows, x, y) => {
    const front = [];
    let least = Infinity;
    for (const i of rows.slice().sort((a, b) => x[a] - x[b] || y[a] - y[b] || a - b))
      if (y[i] < least) { front.push(i); least = y[i]; }
    return front;
  };

  /* Thin rows to `most`, evenly over their cost. */
  board.sampled = (data, rows, across, most) => {
    if (rows.length <= most) return rows;
    const x = data.columns[across], ordered = rows.slice().sort((a, b) => x[a] - x[b] || a - b);
    return Array.from({ length: most }, (_, n) => ordered[Math.floor((n * (ordered.length - 1)) / (most - 1))]);
  };

  /* --- formatting ----------------------------------------------------------------------------- */

  /* Create each format once: that takes longer than formatting a hundred numbers. */
  const formats = new Map(), whole = new Intl.NumberFormat("en");
  const digitsOf = (digits) => {
    if (!formats.has(digits)) formats.set(digits, new Intl.NumberFormat("en", { maximumSignificantDigits: digits }));
    return formats.get(digits);
  };

  board.many = (n) => whole.format(n);
  board.number = (value, digits = 4) => {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e7 || size < 1e-4) return value.toExponential(digits - 1);
    return digitsOf(Math.max(digits, Math.ceil(Math.log10(size + 1)))).format(value);
  };

  /* Return the number and interval of a row in a prefixed unit, or why there is none. */
  board.valueText = (data, figure, i) => {
    const { factor, unit } = data.figures[figure], column = data.values[figure], value = column.value[i];
    if (value === null) return { absent: data.reasons[column.absent[i]] };
    const low = column.low && column.low[i], high = column.high && column.high[i];
    const interval = low === null || high === null || low === undefined ? "" : `${board.number(low * factor)} to ${board.number(high * factor)}`;
    return { number: board.number(value * factor), unit, interval, assumed: !fair(data, figure, i) };
  };

  /* Return the same as one text. */
  board.phrase = (data, figure, i) => {
    const entry = board.valueText(data, figure, i);
    if (entry.absent) return `absent: ${entry.absent}`;
    return `${entry.number}${entry.unit && ` ${entry.unit}`}${entry.interval && ` (${entry.interval})`}${entry.assumed ? ", assumed" : ""}`;
  };
  board.sentence = (data, figure, i) => `${data.figures[figure].words} ${board.phrase(data, figure, i)}`;

  board.heading = (figure) => (figure.unit ? `${figure.words}, ${figure.unit}` : figure.words);
  board.FACETS = FACETS;
})();
