"use strict";
/* Keep the state of filters in the address after #, and update the page. */
(() => {
  const PREFERRED = ["effective_flops_per_s", "bits_per_byte", "decode_s", "prefill_s", "decode_j", "peak_bytes", "file_bytes"];
  const RANKS = ["effective_flops_per_s", "hardware_capacity", "time_capacity", "information_capacity", "bits_per_byte"]; /* sort by the first that has numbers */
  const UP = ["effective_flops_per_s", "effective_flops", "information_capacity", "time_capacity", "energy_capacity", "hardware_capacity", "bits_per_byte", "gain_bits_per_token"];
  const ACROSS = ["peak_bytes", "file_bytes", "decode_s", "decode_j", "prefill_s", "prefill_j", "device_peak_bytes", "flops_per_token", "load_s"];
  const COLOURS = ["precision", "model", "device", "provider"];
  const FILTERS = board.FACETS.filter((facet) => facet !== "text");
  const $ = (id) => document.getElementById(id);
  let data = null, state = null, first = null; /* first: the initial state */

  /* --- state ---------------------------------------------------------------------------------- */

  const has = (name) => name in data.at && data.values[data.at[name]].value.some((v) => v !== null);
  const pick = (names) => names.find(has) || names[0];

  /* Return the text with most cells that can be ranked, else with most cells. */
  const mostRankedText = (column) => {
    const counts = new Array(data.names.text.length).fill(0), numbers = data.columns[data.at[column]];
    data.cells.text.forEach((text, i) => { counts[text] += data.cells.latest[i] * (Number.isNaN(numbers[i]) ? 1 : data.size); });
    return data.names.text[counts.indexOf(Math.max(...counts))];
  };

  const beginning = () => {
    const sort = pick(RANKS);
    return {
      search: "", latest: true, page: 0, intervals: true, colour: "precision", sort, down: !lessIsBetter(sort),
      up: pick(UP), across: pick(ACROSS), columns: new Set(PREFERRED.filter(has)),
      facets: { ...Object.fromEntries(FILTERS.map((facet) => [facet, new Set()])), text: new Set(data.names.text.length > 1 ? [mostRankedText(sort)] : []) },
    };
  };

  const lessIsBetter = (column) => column in data.at && data.figures[data.at[column]].less;

  /* Write what differs from the initial state into the address. */
  const remember = () => {
    const words = new URLSearchParams();
    for (const name of ["search", "sort", "up", "across", "colour"]) if (state[name] !== first[name]) words.set(name, state[name]);
    for (const name of ["latest", "intervals"]) if (state[name] !== first[name]) words.set(name, state[name] ? "1" : "0");
    if (state.sort !== first.sort || state.down !== first.down) words.set("down", state.down ? "1" : "0");
    for (const facet of FILTERS) for (const word of state.facets[facet]) words.append(facet, word);
    const text = [...state.facets.text][0] || "";
    if (text !== ([...first.facets.text][0] || "")) words.set("text", text);
    try { history.replaceState(null, "", `#${words}`); } catch { /* browsers limit the rate; the page works without */ }
  };

  const recall = () => {
    const words = new URLSearchParams(location.hash.slice(1)), recalled = beginning();
    for (const [name, known] of [["up", UP], ["across", ACROSS], ["colour", COLOURS]]) if (known.includes(words.get(name))) recalled[name] = words.get(name);
    if (isColumn(words.get("sort"))) { recalled.sort = words.get("sort"); recalled.down = !lessIsBetter(recalled.sort) && recalled.sort in data.at; }
    for (const name of ["latest", "intervals", "down"]) if (words.has(name)) recalled[name] = words.get(name) === "1";
    recalled.search = words.get("search") || "";
    for (const facet of FILTERS) recalled.facets[facet] = new Set(words.getAll(facet));
    if (words.has("text")) recalled.facets.text = new Set([words.get("text")].filter(Boolean));
    return known(recalled);
  };

  const isColumn = (name) => name !== null && (name in data.at || name in board.WORDS);

  /* Drop words that no cell has: they would hide every row. */
  const known = (recalled) => {
    for (const facet of board.FACETS) recalled.facets[facet] = new Set([...recalled.facets[facet]].filter((word) => data.names[facet].includes(word)));
    return recalled;
  };

  /* --- controls ------------------------------------------------------------------------------- */

  const options = (select, entries, chosen) => {
    select.replaceChildren(...entries.map(([value, words]) => board.element("option", words, { value })));
    select.value = chosen;
  };

  const buildControls = () => {
    const of = (names) => names.filter((name) => name in data.at).map((name) => [name, board.heading(data.figures[data.at[name]])]);
    options($("up"), of(UP), state.up);
    options($("across"), of(ACROSS), state.across);
    options($("colour"), COLOURS.map((facet) => [facet, facet]), state.colour);
    options($("sort"), [...of(board.ordered(data).filter(has)), ...Object.entries(board.WORDS)], state.sort);
    options($("text"), [...data.names.text.map((name) => [name, name]), ["", "all texts (they do not compare)"]], [...state.facets.text][0] || (data.names.text.length > 1 ? "" : data.names.text[0] || ""));
    if ($("search").value !== state.search) $("search").value = state.search;
    $("latest").checked = state.latest;
    $("intervals").checked = state.intervals;
    $("facets").replaceChildren(...FILTERS.filter((facet) => facet !== "tokenizer" || data.names.tokenizer.length > 1).map(facetBox));
    buildColumns();
  };

  const facetBox = (facet) => {
    const box = board.element("fieldset"), list = board.element("div", undefined, { class: "ticks" });
    const order = board.keys(data, facet), places = data.names[facet].map((_, n) => n);
    const first = new Map();
    data.cells[facet].forEach((word, i) => { if (!first.has(word)) first.set(word, order[i]); });
    places.sort((a, b) => first.get(a) - first.get(b));
    list.append(...places.map((n) => tick("facet", facet, data.names[facet][n], n, state.facets[facet].has(data.names[facet][n]))));
    box.append(board.element("legend", facet), list);
    return box;
  };

  const tick = (kind, group, words, n, checked) => {
    const label = board.element("label"), box = board.element("input", undefined, { type: "checkbox", [`data-${kind}`]: group, value: words });
    box.checked = checked;
    label.append(box, " ", board.element("bdi", words), " ", board.element("span", "", { class: "count quiet", "data-count": `${group} ${n}` }));
    return label;
  };

  const buildColumns = () => {
    const usable = data.figures.filter((f) => has(f.name)), none = data.figures.filter((f) => !has(f.name));
    $("columns").replaceChildren(
      board.element("legend", "Columns of the table", { class: "unseen" }),
      ...usable.map((f, n) => {
        const label = tick("column", f.name, board.heading(f), n, state.columns.has(f.name));
        label.querySelector("input").value = f.name;
        return label;
      }),
      ...none.length ? [board.element("p", `No cell has ${none.map((f) => f.words).join("; ")}.`, { class: "quiet" })] : [],
    );
  };

  const counted = (counts) => {
    for (const mark of document.querySelectorAll("[data-count]")) {
      const [facet, n] = mark.dataset.count.split(" ");
      if (!(facet in counts)) continue;
      const words = board.many(counts[facet][n]);
      if (mark.textContent !== words) mark.textContent = words;
    }
  };

  /* --- update --------------------------------------------------------------------------------- */

  let filtered = null, ordered = null;

  /* Update everything: filters, order, chart and table. */
  const show = () => {
    filtered = board.filtered(data, state);
    counted(filtered.counts);
    tell();
    order();
    board.draw(data, state, filtered.rows, best());
    remember();
  };

  /* Update the order or page of the same rows. */
  const order = () => {
    $("sort").value = state.sort;
    ordered = board.sorted(data, filtered.rows, state.sort, state.down);
    state.page = Math.min(state.page, Math.max(0, Math.ceil(ordered.length / board.ROWS) - 1));
    lay();
  };
  const lay = () => board.lay(data, state, ordered, best());

  /* Mark the best by the sorted column, else by the vertical axis of the chart. */
  const rankedBy = () => data.at[state.sort in data.at ? state.sort : state.up];
  const best = () => board.best(data, filtered.rows, rankedBy());

  const tell = () => {
    const { many } = board, { rows, counts } = filtered, words = [`${many(rows.length)} of ${many(data.size)} cells.`];
    const chosen = data.names.text.indexOf([...state.facets.text][0]);
    const elsewhere = chosen < 0 ? 0 : counts.text.reduce((sum, n, text) => sum + (text === chosen ? 0 : n), 0);
    if (elsewhere) words.push(`${many(elsewhere)} more on other texts, which do not compare with these.`);
    const older = data.size - data.cells.latest.reduce((sum, n) => sum + n, 0);
    if (older && state.latest) words.push(`${many(older)} older ones are hidden.`);
    const { words: ranked, within } = data.figures[rankedBy()], numbers = data.columns[rankedBy()];
    for (const what of within) {
      const several = new Set(rows.filter((i) => !Number.isNaN(numbers[i])).map((i) => data.cells[what][i])).size;
      if (several > 1) words.push(`These have ${many(several)} ${what}s: ${ranked} compares only within one.`);
    }
    const failed = rows.filter((i) => data.cells.failure[i] >= 0).length;
    if (failed) words.push(`${many(failed)} of those shown have no measurement.`);
    $("status").textContent = words.join(" ");
    $("best-note").textContent = `★ marks the best of each model on each device by ${data.figures[rankedBy()].words}, within one text.`;
  };

  const introduce = () => {
    const { names, records, size } = data, many = (n, what) => `${board.many(n)} ${what}${n === 1 ? "" : "s"}`;
    const newest = records.length ? ` Newest record: ${records[0].created.slice(0, 16).replace("T", " ")} UTC.` : "";
    $("summary").textContent = `${many(size, "cell")} of ${many(records.length, "record")}: ${many(names.model.length, "model")} on ${many(names.device.length, "device")}.${newest}`;
    $("unread").hidden = data.unread.length === 0;
    $("unread").querySelector("ul").replaceChildren(...data.unread.map((file) => {
      const item = board.element("li");
      item.append(board.element("bdi", file.reason.includes(file.name) ? file.reason : `${file.name}: ${file.reason}`));
      return item;
    }));
    $("published").querySelector("tbody").replaceChildren(...data.published.points.map(([model, flops, capacity, gain]) => {
      const line = board.element("tr");
      line.append(board.element("th", model, { scope: "row" }), ...[board.number(flops / 1e9, 3), capacity.toFixed(4), gain.toFixed(2)].map((x) => board.element("td", x, { class: "number" })));
      return line;
    }));
  };

  /* Replace the data, keep the state and the focus. */
  board.take = (sent) => {
    const held = document.activeElement && document.activeElement.closest("input, select, [data-sort]");
    const again = held && (held.id ? `#${held.id}` : ["facet", "column", "sort"].filter((k) => held.dataset[k]).map((k) => `[data-${k}="${CSS.escape(held.dataset[k])}"]${held.value ? `[value="${CSS.escape(held.value)}"]` : ""}`)[0]);
    data = board.read(sent);
    first = beginning();
    state = state ? known(state) : recall();
    introduce();
    buildControls();
    show();
    if (again && document.querySelector(again)) document.querySelector(again).focus();
  };
  board.open = (row) => board.describe(data, row);

  /* --- events --------------------------------------------------------------------------------- */

  const anew = (change) => { Object.assign(state, change, { page: 0 }); show(); };

  $("asked").addEventListener("submit", (event) => event.preventDefault());
  $("asked").addEventListener("reset", (event) => {
    event.preventDefault();
    const { search, latest, facets } = beginning();
    anew({ search, latest, facets });
    buildControls();
    counted(filtered.counts);
  });
  $("facets").addEventListener("change", ({ target }) => {
    const chosen = state.facets[target.dataset.facet];
    if (target.checked) chosen.add(target.value); else chosen.delete(target.value);
    anew({});
  });
  $("text").addEventListener("change", ({ target }) => { state.facets.text = new Set([target.value].filter(Boolean)); anew({}); });
  $("search").addEventListener("input", ({ target }) => anew({ search: target.value }));
  $("latest").addEventListener("change", ({ target }) => anew({ latest: target.checked }));
  for (const name of ["up", "across", "colour"]) $(name).addEventListener("change", ({ target }) => { state[name] = target.value; show(); });
  $("intervals").addEventListener("change", ({ target }) => { state.intervals = target.checked; lay(); remember(); });
  $("columns").addEventListener("change", ({ target }) => {
    if (target.checked) state.columns.add(target.value); else state.columns.delete(target.value);
    lay();
  });
  const sortBy = (name) => anew({ sort: name, down: state.sort === name ? !state.down : name in data.at ? !lessIsBetter(name) : name === "created" });
  $("sort").addEventListener("change", ({ target }) => sortBy(target.value));
  $("reverse").addEventListener("click", () => sortBy(state.sort));
  document.querySelector("#cells thead").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-sort]");
    if (!button) return;
    const name = button.dataset.sort;
    sortBy(name);
    document.querySelector(`[data-sort="${name}"]`).focus();
  });
  document.querySelector("#cells tbody").addEventListener("click", ({ target }) => {
    const button = target.closest("[data-open]");
    if (button) board.open(Number(button.dataset.open));
  });
  $("pages").addEventListener("click", ({ target }) => {
    if (!target.dataset.page) return;
    state.page = Number(target.dataset.page);
    lay();
    document.getElementById("table-title").scrollIntoView();
  });

  if (matchMedia("(max-width: 40rem)").matches) $("filters").open = false;
  board.take(JSON.parse($("board-data").textContent));
})();
