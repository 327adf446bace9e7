// What every page needs: a theme, tables that sort, figures in the page's own colours. It stands in the head, so that the
// theme is set before anything is painted; the rest waits for the document.
//
//   <table data-sortable>        each <th> of its <thead> gets a button; a <td data-value="1.5"> is a number, data-value=""
//                                one that is absent and stays below; without it the text counts, as a number where it is
//                                one; a <th data-unsorted> has no button
//   <table data-stacked>         on a phone each row is a list, so that nothing scrolls sideways
//   <div data-figure="ID">       drawn from the element with that id, a script of type application/json that holds
//                                {"data": [...], "layout": {...}}; where a key holds "color", "--name" is that CSS variable;
//                                drawn when it comes near the screen or nothing else is to do
//   window.edgecap               draw(div), drawAll(), sortable(table) for pages that change what they show
"use strict";
(() => {
  const root = document.documentElement;
  const KEY = "edgecap-theme";
  const THEMES = ["system", "light", "dark"];
  const SERIES = [1, 2, 3, 4, 5, 6, 7, 8].map((n) => `--s${n}`);
  const CONFIG = { responsive: true, displaylogo: false, displayModeBar: false };
  const TALL = 900; // CSS pixels of a figure in which a legend takes little
  const ONE_ROW = 30; // of a legend, which a figure's own height has room for
  const PAGE_WIDTH = 690; // CSS pixels that fit an A4 or letter page

  // --- theme ----------------------------------------------------------------------------------

  function remembered() {
    try { return THEMES.includes(localStorage.getItem(KEY)) ? localStorage.getItem(KEY) : "system"; } catch { return "system"; }
  }

  function setTheme(theme) {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    try { localStorage.setItem(KEY, theme); } catch { /* without storage the theme still changes */ }
  }

  function addThemeButton() {
    const button = document.createElement("button");
    let theme = remembered();
    const name = () => { button.textContent = `Theme: ${theme}`; };
    button.type = "button";
    button.id = "theme";
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      setTheme(theme);
      name();
      drawSeen();
    });
    name();
    const header = document.querySelector("body > header");
    if (header) header.append(button);
    else document.getElementById("main").before(button);
  }

  // --- tables ---------------------------------------------------------------------------------

  const NUMBER = /^-?\d+(\.\d+)?(e[-+]?\d+)?$/;
  const words = new Intl.Collator("en", { numeric: true });

  function read(text) {
    return text === "" || text === "-" ? null : NUMBER.test(text) ? Number(text) : text;
  }

  function valueOf(row, column) {
    const cell = row.cells[column];
    const given = cell.dataset.value;
    if (given === undefined) return read(cell.textContent.trim());
    return given === "" ? null : Number(given);
  }

  function order(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : words.compare(String(a), String(b));
  }

  function sort(table, column, sign) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
    const absent = rows.filter(([value]) => value === null);
    const present = rows.filter(([value]) => value !== null).sort(([a], [b]) => sign * order(a, b));
    body.append(...[...present, ...absent].map(([, row]) => row));
  }

  function stackable(table) { // on a phone a row is a list of values, each with the name of its column
    const names = [...table.tHead.rows[0].cells].map((head) => head.textContent);
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, column) => { if (column && !cell.dataset.label) cell.dataset.label = names[column]; });
    }
  }

  function sortable(table) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      if (head.dataset.unsorted !== undefined || head.querySelector("button")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => {
        const rising = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", rising ? "ascending" : "descending");
        sort(table, column, rising ? 1 : -1);
      });
      head.append(button);
    });
  }

  // --- figures --------------------------------------------------------------------------------

  const probe = document.createElement("span"); // a variable may hold light-dark(), which only an element resolves

  function colour(name) {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  }

  function coloured(value, key = "") {
    if (Array.isArray(value)) return value.map((one) => coloured(one, key));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, coloured(one, name)]));
    }
    return typeof value === "string" && value.startsWith("--") && key.includes("color") ? colour(value) : value;
  }

  function template() {
    const axis = {
      automargin: true, gridcolor: "--line", linecolor: "--line", zerolinecolor: "--line", tickcolor: "--line",
      title: { standoff: 10 },
    };
    return coloured({
      layout: {
        autosize: true,
        colorway: SERIES,
        dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false, // a finger that passes scrolls the page
        font: { color: "--ink", family: getComputedStyle(document.body).fontFamily, size: innerWidth < 480 ? 11 : 13 },
        hoverlabel: { bgcolor: "--raised", bordercolor: "--quiet", font: { color: "--ink" }, align: "left" },
        legend: { orientation: "h", x: 0, y: 1, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", traceorder: "normal" },
        margin: { l: 10, r: 16, t: 10, b: 10 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        xaxis: axis,
        yaxis: axis,
      },
    });
  }

  const seen = new Set(); // figures that were drawn, and must follow the theme

  function draw(div) {
    const figure = coloured(JSON.parse(document.getElementById(div.dataset.figure).textContent));
    const width = root.dataset.printing === undefined ? {} : { width: PAGE_WIDTH };
    const layout = { ...figure.layout, ...width, template: template() };
    const drawn = (height) => {
      if (height) div.style.height = `${height}px`;
      return Plotly.react(div, figure.data, height ? { ...layout, height } : layout, CONFIG);
    };
    const legend = () => div.querySelector(".legend .bg")?.getBoundingClientRect().height || 0;
    const height = figure.layout.height;
    const done = drawn(height);
    seen.add(div);
    if (!height || height > TALL || legend() <= ONE_ROW) return done;
    // A legend that wraps on a phone must not eat the plot: it is drawn with room to spare, measured, and given its room.
    drawn(height + ONE_ROW * figure.data.length + height);
    return drawn(Math.round(height + legend() - ONE_ROW));
  }

  function drawAll() {
    if (typeof Plotly !== "undefined") document.querySelectorAll("[data-figure]").forEach(draw);
  }

  function drawSeen() {
    seen.forEach((div) => { if (div.isConnected) draw(div); else seen.delete(div); });
  }

  function forgetSizes() { // a legend that needs fewer rows would keep the room of the old ones
    seen.forEach((div) => Plotly.purge(div));
  }

  function drawWhenNear() {
    const near = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
        near.unobserve(target);
        if (!seen.has(target)) draw(target);
      });
    }, { rootMargin: "800px 0px" });
    if (typeof Plotly === "undefined") return;
    const figures = [...document.querySelectorAll("[data-figure]")];
    figures.forEach((div) => near.observe(div));
    drawIdly(figures.filter((div) => div.clientHeight <= TALL));
  }

  function drawIdly(waiting) {
    const idle = window.requestIdleCallback || ((then) => setTimeout(then, 100));
    const next = waiting.find((div) => !seen.has(div));
    if (next) idle(() => { if (!seen.has(next)) draw(next); drawIdly(waiting); });
  }

  function addSaving(div) {
    const figure = div.closest("figure");
    if (!figure) return;
    const title = figure.querySelector("h2, h3, h4")?.textContent.trim() || div.dataset.figure;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "Save as SVG";
    button.setAttribute("aria-label", `Save as SVG: ${title}`);
    button.addEventListener("click", () => {
      if (!seen.has(div)) draw(div);
      Plotly.downloadImage(div, { format: "svg", filename: div.dataset.figure, width: div.clientWidth, height: div.clientHeight });
    });
    figure.append(button);
  }

  // --- print: black on white and as wide as a page, whatever the screen shows -------------------

  function printing(on) {
    if (on === (root.dataset.printing !== undefined)) return;
    if (on) root.dataset.printing = "";
    else delete root.dataset.printing;
    forgetSizes();
    if (on) drawAll();
    else drawSeen();
  }

  setTheme(remembered());
  window.edgecap = { draw, drawAll, sortable };
  document.addEventListener("DOMContentLoaded", () => {
    probe.hidden = true;
    document.body.append(probe);
    addThemeButton();
    document.querySelectorAll("table[data-stacked]").forEach(stackable); // before buttons join the names
    document.querySelectorAll("table[data-sortable]").forEach(sortable);
    document.querySelectorAll("[data-figure]").forEach(addSaving);
    drawWhenNear();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawSeen);
    matchMedia("print").addEventListener("change", (event) => printing(event.matches));
    let settled; // a turned phone wraps legends anew
    addEventListener("resize", () => { clearTimeout(settled); settled = setTimeout(() => { forgetSizes(); drawSeen(); }, 250); });
    addEventListener("beforeprint", () => printing(true));
    addEventListener("afterprint", () => printing(false));
  });
})();
