"use strict";
/* Draw the scatter plot: points, Pareto front, published values and a tooltip. */
(() => {
  const MOST = 1500, WITH_BARS = 150; /* points drawn at most; points drawn with intervals at most */
  const NEAR = 24; /* pixels within which a pointer selects a point */
  const CAPACITY = "information_capacity", FLOPS = "flops_per_token";
  const PUBLISHED = 2; /* their mark: a diamond */
  const figure = document.getElementById("figure"), tooltip = document.getElementById("tooltip");
  let now = null, width = figure.clientWidth; /* the drawing and its width */

  board.draw = (data, state, rows, best) => {
    const across = data.at[state.across], up = data.at[state.up];
    const drawable = board.drawable(data, rows, across, up), fronts = board.fronts(data, drawable, across, up);
    const front = new Set(fronts.flat()), sample = new Set(board.sampled(data, drawable, across, MOST));
    const points = drawable.filter((i) => sample.has(i) || front.has(i)), context = published(data, rows, state);
    now = { data, state, across, up, front, fronts, best, points, groups: grouped(data, points, state.colour), context: context.points };
    paint();
    legend();
    note(rows, drawable);
    document.getElementById("published-note").textContent = context.words;
  };

  /* --- content -------------------------------------------------------------------------------- */

  /* Group points by the words of a facet; words beyond the number of shapes share one group. */
  const grouped = (data, points, facet) => {
    const words = data.names[facet], cells = data.cells[facet], byWord = new Map();
    for (const i of points) {
      const word = cells[i];
      if (!byWord.has(word)) byWord.set(word, []);
      byWord.get(word).push(i);
    }
    const known = [...byWord.keys()].sort((a, b) => a - b);
    const own = known.length <= board.GROUPS ? known : known.slice(0, board.GROUPS - 1);
    const groups = own.map((word, n) => ({ name: words[word], rows: byWord.get(word), n }));
    const rest = known.slice(own.length).flatMap((word) => byWord.get(word));
    return rest.length ? [...groups, { name: `${known.length - own.length} others`, rows: rest, n: board.GROUPS - 1 }] : groups;
  };

  /* Return the published points if they compare with the shown ones, and a sentence that says why. */
  const published = (data, rows, state) => {
    const { points, source } = data.published, alike = rows.filter((i) => data.cells.published[i]).length;
    const what = `${points.length} published values (${source})`;
    if (!alike)
      return { points: [], words: `The ${what} are not drawn: no shown cell was scored as they were, by protocol paper in a window of 1024 on mixed_text with a bias of −24.` };
    if (state.up !== CAPACITY || state.across !== FLOPS)
      return { points: [], words: `The ${what} are not drawn: they have information capacity and FLOPs only. Choose these two as axes.` };
    const others = alike < rows.length ? ` ${rows.length - alike} of the shown cells were scored otherwise and do not compare with them.` : "";
    return { points, words: `Grey diamonds: ${what}, read off the figure, with the FLOPs of the published script; not measured by edgecap. They are shown because ${alike} of the shown cells were scored by the same protocol on a text of the same name and bias.${others}` };
  };

  /* --- drawing -------------------------------------------------------------------------------- */

  const paint = () => {
    if (!now || !width) return;
    const { data, across, up, points, context } = now, height = width < 500 ? 320 : 400;
    const x = (i) => data.columns[across][i] * data.figures[across].factor, y = (i) => data.columns[up][i] * data.figures[up].factor;
    const flops = context.map(([, n]) => n * data.figures[across].factor), capacity = context.map(([, , c]) => c);
    const bars = points.length <= WITH_BARS ? intervals(data, up, points) : [];
    const right = width - 12, bottom = height - 46;
    const ys = board.scale([...points.map(y), ...capacity, ...bars.flatMap(([, low, high]) => [low, high])], data.figures[up].log, bottom, 34);
    const yTicks = ys.ticks(6), level = alike(yTicks), left = 14 + 7.5 * Math.max(...yTicks.map((v) => level(v).length), 1);
    const xs = board.scale([...points.map(x), ...flops], true, left, right);
    now.places = points.map((i) => [xs.at(x(i)), ys.at(y(i)), i]);
    now.published = context.map((_, n) => [xs.at(flops[n]), ys.at(capacity[n]), -n - 1]);
    const at = new Map(now.places.map((place) => [place[2], place]));
    const svg = part("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    svg.append(
      ...axes({ xs, ys, yTicks, level, left, right, bottom }),
      outline(now.published.map(([px, py]) => board.mark(PUBLISHED, px, py)), "open quiet"),
      ...now.groups.flatMap((group) => groupMarks(group, at, bars, ys)),
      ...now.fronts.map((rows) => part("path", { class: "front", d: board.stairs(rows.map((i) => at.get(i))) })),
      outline([...now.front].map((i) => board.circle(at.get(i)[0], at.get(i)[1], now.front.size < 30 ? 8 : 6)), "ring"),
    );
    figure.replaceChildren(svg);
    tooltip.hidden = true;
  };

  /* Draw the marks of a group, hollow for assumed joules, with vertical intervals. */
  const groupMarks = (group, at, bars, ys) => {
    const marks = (rows) => rows.map((i) => board.mark(group.n, at.get(i)[0], at.get(i)[1])), { assumed } = now.data;
    const own = new Set(group.rows);
    const lines = bars.filter(([i]) => own.has(i)).map(([i, low, high]) => `M${at.get(i)[0]} ${ys.at(low)}V${ys.at(high)}`);
    return [
      outline(lines, `bar s${group.n + 1}`),
      outline(marks(group.rows.filter((i) => !assumed[i])), `filled s${group.n + 1}`),
      outline(marks(group.rows.filter((i) => assumed[i])), `open s${group.n + 1}`),
    ];
  };

  const intervals = (data, n, rows) => {
    const { low, high } = data.values[n], { factor } = data.figures[n];
    if (!low || !high) return [];
    return rows.filter((i) => low[i] !== null && high[i] !== null).map((i) => [i, low[i] * factor, high[i] * factor]);
  };

  const axes = ({ xs, ys, yTicks, level, left, right, bottom }) => {
    const { data, across, up } = now, many = Math.max(3, Math.floor((right - left) / 60));
    const words = (content, place) => { const made = part("text", place); made.textContent = content; return made; };
    const heading = (n) => board.heading(data.figures[n]) + (data.figures[n].less && n === up ? " (less is better)" : "");
    return [
      ...yTicks.flatMap((v) => [
        part("line", { class: "grid", x1: left, x2: right, y1: ys.at(v), y2: ys.at(v) }),
        words(level(v), { x: left - 6, y: ys.at(v) + 4, "text-anchor": "end" }),
      ]),
      ...xs.ticks(many).flatMap((v) => [
        part("line", { class: "grid", x1: xs.at(v), x2: xs.at(v), y1: 34, y2: bottom }),
        words(written(v), { x: xs.at(v), y: bottom + 17, "text-anchor": "middle" }),
      ]),
      words(heading(up), { x: 0, y: 16, class: "title" }),
      words(heading(across), { x: right, y: bottom + 38, "text-anchor": "end", class: "title" }),
    ];
  };

  const written = (v) => board.number(v, 6);

  /* Format ticks with as many decimals as the one that needs most. */
  const alike = (values) => {
    const decimals = Math.max(0, ...values.map((v) => (String(v).split(".")[1] || "").length));
    return (v) => v.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
  };

  const part = (tag, given) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
    return made;
  };
  const outline = (pieces, className) => part("path", { class: className, d: pieces.join("") });

  /* --- description ---------------------------------------------------------------------------- */

  const note = (rows, drawable) => {
    const { data, state, points, front } = now, { many } = board, words = [];
    words.push(`${many(drawable.length)} of ${many(rows.length)} shown cells have both numbers.`);
    if (points.length < drawable.length)
      words.push(`Of these the front and an even sample are drawn, ${many(points.length)} points; the table holds all.`);
    if (front.size) {
      const { length } = now.fronts, split = [now.across, now.up].some((n) => data.figures[n].within.includes("tokenizer")) && data.names.tokenizer.length > 1;
      words.push(`Dashed: the Pareto front${length > 1 ? `s, one for each text${split ? " and tokenizer" : ""}` : ""}; no shown cell is both cheaper and better than one on it.`);
    }
    if ([state.across, state.up].some((name) => data.ofJoules[data.at[name]]) && points.some((i) => data.assumed[i]))
      words.push("Hollow points have assumed joules, not measured ones; they are on no front.");
    document.getElementById("chart-note").textContent = words.join(" ");
  };

  const legend = () => {
    const { groups, front, context, points, data } = now;
    const sample = (path, className) => {
      const svg = part("svg", { viewBox: "-9 -9 18 18", width: 18, height: 18, "aria-hidden": "true" });
      svg.append(part("path", { d: path, class: className }));
      return svg;
    };
    const entry = (path, className, words) => {
      const item = document.createElement("span"), name = document.createElement("bdi");
      name.textContent = words;
      item.append(sample(path, className), name);
      return item;
    };
    document.getElementById("legend").replaceChildren(
      ...groups.map((group) => entry(board.mark(group.n, 0, 0), `filled s${group.n + 1}`, group.name)),
      ...points.some((i) => data.assumed[i]) ? [entry(board.mark(0, 0, 0), "open quiet", "hollow: joules assumed")] : [],
      ...front.size ? [entry(board.circle(0, 0, 8), "ring", "on the front")] : [],
      ...context.length ? [entry(board.mark(PUBLISHED, 0, 0), "open quiet", "published")] : [],
    );
  };

  /* --- the tooltip ---------------------------------------------------------------------------- */

  /* Return the point nearest to the pointer, within NEAR pixels. */
  const nearest = (event) => {
    if (!now || !now.places) return null;
    const room = figure.getBoundingClientRect(), px = event.clientX - room.left, py = event.clientY - room.top;
    let closest = null, least = NEAR * NEAR;
    for (const place of [...now.places, ...now.published]) {
      const away = (place[0] - px) ** 2 + (place[1] - py) ** 2;
      if (away < least) { least = away; closest = place; }
    }
    return closest;
  };

  const point = (event) => {
    const place = nearest(event);
    figure.classList.toggle("pointed", place !== null && place[2] >= 0);
    if (place) show(place); else tooltip.hidden = true;
  };
  figure.addEventListener("pointermove", point);
  figure.addEventListener("pointerdown", point);
  figure.addEventListener("pointerleave", () => { tooltip.hidden = true; });
  figure.addEventListener("click", (event) => {
    const place = nearest(event);
    if (place && place[2] >= 0) board.open(place[2]);
  });

  const show = ([x, y, row]) => {
    const lines = row < 0 ? publishedLines(-row - 1) : cellLines(row);
    tooltip.replaceChildren(...lines.map((words, n) => {
      const line = document.createElement(n ? "span" : "strong");
      line.textContent = words; line.dir = "auto";
      return line;
    }));
    tooltip.hidden = false;
    const { width: w, height: h } = tooltip.getBoundingClientRect();
    const left = x + 14 + w <= width ? x + 14 : x - 14 - w;
    tooltip.style.left = `${Math.max(0, Math.min(left, width - w))}px`;
    tooltip.style.top = `${Math.max(0, left < 0 ? y + 14 : y - h / 2)}px`;
  };

  const publishedLines = (n) => {
    const [model, flops, capacity] = now.data.published.points[n];
    return [model, `published, ${now.data.published.source}`, `information capacity ${board.number(capacity)}`, `${board.number(flops / 1e9, 3)} GFLOP a token`];
  };

  const cellLines = (i) => {
    const { data, across, up, front, best } = now, { names, cells } = data, word = (facet) => names[facet][cells[facet][i]];
    return [
      `${word("model")} ${word("precision")}`,
      `${word("device")}, ${word("provider")}`,
      board.sentence(data, up, i),
      board.sentence(data, across, i),
      ...front.has(i) ? ["on the Pareto front"] : [],
      ...best.has(i) ? ["best of this model on this device"] : [],
    ];
  };

  /* Return x, y and row of each point. */
  board.places = () => now.places;

  new ResizeObserver(([seen]) => {
    const wide = Math.round(seen.contentRect.width);
    if (wide !== width) { width = wide; paint(); }
  }).observe(figure);
})();
