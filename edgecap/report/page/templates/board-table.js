"use strict";
/* Show the table, 100 rows a page, and the dialog with all facts of a cell. */
(() => {
  const ROWS = 100, SHORT = 28; /* rows of a page; characters of a name that stay on one line */
  const FIRST = ["effective_flops_per_s", "effective_flops_per_j", "effective_flops", "bits_per_byte", "information_capacity", "time_capacity", "energy_capacity", "hardware_capacity"]; /* columns */
  const WORDS = { model: "model", device: "device", provider: "provider", precision: "precision" };
  const head = document.querySelector("#cells thead"), body = document.querySelector("#cells tbody");

  const element = (tag, words, more = {}) => {
    const made = document.createElement(tag);
    if (words !== undefined) made.textContent = words;
    for (const [name, value] of Object.entries(more)) if (value !== undefined) made.setAttribute(name, value);
    return made;
  };
  board.element = element;

  /* Return the names of the figures in the order of the table's columns. */
  board.ordered = (data) => [...new Set([...FIRST.filter((name) => name in data.at), ...Object.keys(data.at)])];

  board.lay = (data, state, ordered, best) => {
    const figures = board.ordered(data).filter((name) => state.columns.has(name) || name === state.sort).map((name) => data.at[name]);
    head.replaceChildren(heading(data, state, figures));
    const first = state.page * ROWS, some = ordered.slice(first, first + ROWS);
    body.replaceChildren(...some.map((i, n) => row(data, state, figures, i, first + n + 1, best)));
    pages(state, ordered.length);
  };

  /* --- rows ----------------------------------------------------------------------------------- */

  const heading = (data, state, figures) => {
    const line = element("tr");
    line.append(element("th", "#", { scope: "col" }));
    for (const [name, words] of Object.entries(WORDS)) line.append(sorter(state, name, words, false));
    for (const n of figures) line.append(sorter(state, data.figures[n].name, board.heading(data.figures[n]), true));
    line.append(sorter(state, "created", "date (UTC)", false), element("th", "file", { scope: "col" }));
    return line;
  };

  const sorter = (state, name, words, isNumber) => {
    const sorted = state.sort === name;
    const cell = element("th", undefined, {
      scope: "col", "aria-sort": sorted ? (state.down ? "descending" : "ascending") : undefined, class: isNumber ? "number" : undefined,
    });
    const button = element("button", words, { type: "button", "data-sort": name });
    button.append(element("span", sorted ? (state.down ? " ▼" : " ▲") : "", { "aria-hidden": "true" }));
    cell.append(button);
    return cell;
  };

  const row = (data, state, figures, i, rank, best) => {
    const { names, cells, records, reasons } = data, word = (facet) => names[facet][cells[facet][i]];
    const line = element("tr", undefined, { "data-row": i }), name = element("th", undefined, { scope: "row", class: lengthOf(word("model")) });
    name.append(element("bdi", word("model"), { title: word("model") }));
    if (best.has(i)) name.append(" ", badge("★ best", "good", "Best of this model on this device, by the figure named above the table"));
    line.append(opener(i, rank, `${word("model")} ${word("precision")}`), name, plain("device", word("device"), names.processor[cells.device[i]]));
    line.append(plain("provider", word("provider")), marked(data, i, word("precision")));
    if (cells.failure[i] >= 0) line.append(failed(reasons[cells.failure[i]], word("outcome"), figures.length));
    else line.append(...figures.map((n) => number(data, state, n, i)));
    const record = records[cells.record[i]], file = element("td");
    file.append(element("a", "record", { href: record.link, title: record.name }));
    line.append(element("td", record.created.slice(0, 16).replace("T", " "), { title: record.created, class: "when", "data-label": "date (UTC)" }), file);
    return line;
  };

  const opener = (i, rank, whose) => {
    const cell = element("td", undefined, { class: "rank" });
    cell.append(element("button", String(rank), { type: "button", "data-open": i, "aria-label": `${rank}: everything about ${whose}` }));
    return cell;
  };

  const lengthOf = (words) => (words.length > SHORT ? "name" : "short");

  const plain = (label, words, title) => {
    const cell = element("td", undefined, { class: lengthOf(words), title: title || words, "data-label": label });
    cell.append(element("bdi", words));
    return cell;
  };

  const badge = (words, kind, title) => element("span", words, { class: `badge ${kind}`, title });

  const marked = (data, i, precision) => {
    const cell = plain("precision", precision), { cells } = data;
    if (!cells.latest[i]) cell.append(" ", badge("older", "quiet", "A newer record has the same model, device, provider, precision and text"));
    if (!data.records[cells.record[i]].complete) cell.append(" ", badge("cut off", "doubt", "The record's run was cut off, or is going on"));
    if (cells.cautions[i]) cell.append(" ", badge(`${cells.cautions[i]} caution${cells.cautions[i] > 1 ? "s" : ""}`, "doubt", "edgecap show RECORD --details lists them"));
    return cell;
  };

  const failed = (reason, outcome, width) => {
    const cell = element("td", undefined, { colspan: Math.max(1, width), class: outcome === "failed" ? "failed" : "failed quiet", title: reason });
    cell.append(element("bdi", `${outcome}: ${reason}`));
    return cell;
  };

  const number = (data, state, n, i) => {
    const value = board.valueText(data, n, i), isSorted = data.figures[n].name === state.sort, label = board.heading(data.figures[n]);
    if (value.absent) {
      const cell = element("td", "–", { class: isSorted ? "number absent why" : "number absent", title: `absent: ${value.absent}`, "data-label": label });
      if (isSorted) cell.append(element("small", value.absent));
      return cell;
    }
    const cell = element("td", value.number, { class: "number", title: value.interval && `95 % interval ${value.interval}`, "data-label": label });
    if (value.assumed) cell.append(" ", badge("assumed", "doubt", "Watts were given by the user, not measured"));
    if (state.intervals && value.interval) cell.append(element("small", value.interval));
    return cell;
  };

  /* --- pages ---------------------------------------------------------------------------------- */

  const pages = (state, all) => {
    const last = Math.max(0, Math.ceil(all / ROWS) - 1), first = state.page * ROWS, { many } = board;
    const go = (words, page, off) => {
      const button = element("button", words, { type: "button", "data-page": page });
      button.disabled = off;
      return button;
    };
    const where = element("span", all ? `rows ${many(first + 1)} to ${many(Math.min(all, first + ROWS))} of ${many(all)}` : "no cell passes these filters");
    const place = document.getElementById("pages"), { page } = state;
    if (!last) return place.replaceChildren(where);
    place.replaceChildren(go("First", 0, !page), go("Previous", page - 1, !page), where, go("Next", page + 1, page === last), go("Last", last, page === last));
  };

  /* --- one cell ------------------------------------------------------------------------------- */

  const dialog = document.getElementById("cell"), link = document.getElementById("cell-link");
  document.getElementById("cell-close").addEventListener("click", () => dialog.close());

  board.describe = (data, i) => {
    const { names, cells, records, reasons } = data, word = (facet) => names[facet][cells[facet][i]], record = records[cells.record[i]];
    document.getElementById("cell-title").textContent = `${word("model")} ${word("precision")}`;
    const facts = [
      ["device", names.processor[cells.device[i]]], ["provider", word("provider")], ["text", word("text")],
      ["date", record.created], ["record", record.name],
      ...cells.failure[i] >= 0 ? [[word("outcome"), reasons[cells.failure[i]]]] : data.figures.map((f, n) => [f.words, board.phrase(data, n, i)]),
      ...cells.context[i] === null ? [] : [["decoded behind", `${board.number(cells.context[i])} positions`]],
      ...cells.joules[i] < 0 ? [] : [["joules", reasons[cells.joules[i]]]],
    ];
    dialog.querySelector("tbody").replaceChildren(...facts.map(([words, value]) => {
      const line = element("tr"), cell = element("td");
      cell.append(element("bdi", value));
      line.append(element("th", words, { scope: "row" }), cell);
      return line;
    }));
    link.href = record.link;
    dialog.showModal();
  };

  board.ROWS = ROWS;
  board.WORDS = { ...WORDS, created: "date" };
})();
