// The view of LiveTable: a store of rows for each model, and any number of views that draw what is visible of it.
// Texts come from outside: they are only ever assigned to textContent, title or a class chosen here.

const ROW = 26; // pixels, as in table.css
const NUMBERS = ["confidence", "price", "atr_percent", "volume", "rsi", "tp", "sl"];
const TEXTS = ["signal", "recommendation", "state", "calibration", "reasons"];
const HERE_MS = 20_000; // how often a page says that it is still there
const RESORT_MS = 1000; // rows must not jump about under the pointer

const COLUMNS = [
  { key: "symbol", title: "Symbol", width: 118 },
  { key: "signal", title: "Signal", width: 66 },
  { key: "confidence", title: "Confidence", width: 90 },
  { key: "price", title: "Price", width: 88 },
  { key: "atr_percent", title: "ATR %", width: 58 },
  { key: "volume", title: "Volume", width: 66 },
  { key: "rsi", title: "RSI", width: 44 },
  { key: "recommendation", title: "Recommendation", width: 160 },
  { key: "tp", title: "TP", width: 90 },
  { key: "sl", title: "SL", width: 90 },
  { key: "state", title: "State", width: 68 },
  { key: "calibration", title: "Calibration", width: 92 },
  { key: "reasons", title: "Reasons", width: 0 },
].map((column) => ({ ...column, number: NUMBERS.indexOf(column.key), text: TEXTS.indexOf(column.key) }));

// --- the rows -------------------------------------------------------------------------------------------------------

function makeStore(model) {
  const store = { rows: [], seq: -1, changed: new Set(), patches: 0 };

  function takeWhole(content, [values, ages]) {
    const now = performance.now();
    const numbers = doubles(values);
    const seconds = new Float32Array(copied(ages));
    store.rows = content.symbols.map((symbol, i) => ({
      symbol,
      numbers: Array.from(numbers.subarray(i * NUMBERS.length, (i + 1) * NUMBERS.length)),
      texts: content.texts[i],
      heard: now - 1000 * seconds[i],
      digits: 0,
    }));
    store.seq = content.seq;
  }

  function takePatch(content, [places, columns, values, heard]) {
    if (content.seq !== store.seq + 1) {
      if (content.seq > store.seq) model.send({ kind: "ready" }); // one was missed
      return;
    }
    const now = performance.now();
    const rows = new Uint16Array(copied(places));
    const cells = new Uint8Array(copied(columns));
    const numbers = doubles(values);
    for (let i = 0; i < rows.length; i++) store.rows[rows[i]].numbers[cells[i]] = numbers[i];
    for (const [row, column, text] of content.texts) {
      const texts = store.rows[row].texts.slice();
      texts[column] = text;
      store.rows[row].texts = texts;
    }
    for (const row of new Uint16Array(copied(heard))) store.rows[row].heard = now;
    store.seq = content.seq;
    store.patches += 1;
  }

  model.on("msg:custom", (content, buffers) => {
    if (content.kind === "whole") takeWhole(content, buffers);
    else if (content.kind === "patch") takePatch(content, buffers);
    for (const tell of store.changed) tell(content.kind === "whole");
  });
  return store;
}

// A buffer's bytes need not begin where typed arrays of eight bytes may.
const copied = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
const doubles = (view) => new Float64Array(copied(view));

// --- how a cell reads -----------------------------------------------------------------------------------------------

function decimals(value) {
  const [digits, exponent] = String(value).split("e");
  return Math.min(12, Math.max(0, (digits.split(".")[1] || "").length - Number(exponent || 0)));
}

const size10 = (value) => Math.floor(Math.log10(Math.abs(value) || 1));
const mostDigits = (value) => Math.min(12, Math.max(0, 6 - size10(value)));

function priceText(row, value) {
  // A price that is a multiple of its tick shows as many digits as the tick has; a computed level is cut to those.
  const least = Math.min(12, Math.max(0, 4 - size10(value)));
  return value.toFixed(Math.max(row.digits, least));
}

function volumeText(value) {
  for (const [size, unit] of [[1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= size) return (value / size).toPrecision(4) + unit;
  }
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}

function cellText(row, column) {
  if (column.number < 0) return column.text < 0 ? row.symbol : row.texts[column.text];
  const value = row.numbers[column.number];
  if (!Number.isFinite(value)) return "–";
  switch (column.key) {
    case "price":
      row.digits = Math.max(row.digits, Math.min(decimals(value), mostDigits(value)));
      return priceText(row, value);
    case "tp":
    case "sl":
      return priceText(row, value);
    case "volume":
      return volumeText(value);
    case "rsi":
      return value.toFixed(1);
    case "atr_percent":
      return value.toFixed(3);
    default:
      return value.toFixed(2);
  }
}

function ageText(seconds) {
  if (seconds < 100) return `${Math.round(seconds)} s old`;
  if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min old`;
  return `${Math.round(seconds / 3600)} h old`;
}

function sortKey(row, column) {
  if (column.number < 0) return cellText(row, column);
  return row.numbers[column.number];
}

function inOrder(rows, column, down) {
  const keyed = rows.map((row) => [sortKey(row, column), row]);
  const compare = (a, b) => {
    if (column.number < 0) return a < b ? -1 : a > b ? 1 : 0;
    if (Number.isNaN(a) || Number.isNaN(b)) return 0;
    return a - b;
  };
  keyed.sort(([a, one], [b, other]) => {
    const blank = Number(Number.isNaN(a)) - Number(Number.isNaN(b)); // what is not known stays at the end
    return blank || (down ? compare(b, a) : compare(a, b)) || compareText(one.symbol, other.symbol);
  });
  return keyed.map(([, row]) => row);
}

const compareText = (a, b) => (a < b ? -1 : a > b ? 1 : 0);

// --- the view -------------------------------------------------------------------------------------------------------

function make(tag, className, parent) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (parent) parent.appendChild(node);
  return node;
}

function makeView(store, model, el) {
  const root = make("div", "aione-table", el);
  const bar = make("div", "bar", root);
  const status = make("span", "status", bar);
  const filter = make("input", "", bar);
  filter.type = "search";
  filter.placeholder = "Filter: symbol, reason, state";
  filter.setAttribute("aria-label", "Filter rows");
  const problem = make("div", "problem", root);
  problem.setAttribute("role", "status");
  const scroller = make("div", "rows", root);
  scroller.tabIndex = 0;
  scroller.dataset.lmSuppressShortcuts = "true"; // JupyterLab would take the arrow keys for itself
  const table = make("table", "", scroller);
  table.setAttribute("role", "grid");
  const group = make("colgroup", "", table);
  for (const column of COLUMNS) {
    const col = make("col", "", group);
    if (column.width) col.style.width = `${column.width}px`;
  }
  const head = make("tr", "", make("thead", "", table));
  const titles = COLUMNS.map((column, i) => {
    const th = make("th", column.number >= 0 ? "number" : "", head);
    th.scope = "col";
    th.addEventListener("click", () => sortBy(i));
    return th;
  });
  const body = make("tbody", "", table);
  const above = make("td", "", make("tr", "spacer", body));
  const below = make("td", "", make("tr", "spacer", body));
  above.colSpan = below.colSpan = COLUMNS.length;
  const nothing = make("div", "nothing", scroller);

  const view = { sort: -1, down: false, order: [], sorted: 0, late: true, cursor: "", frame: 0, frames: 0, pool: [] };

  function schedule() {
    if (!view.frame) view.frame = requestAnimationFrame(draw);
  }

  function sortBy(index) {
    const first = COLUMNS[index].number >= 0; // of numbers the largest first
    if (view.sort !== index) [view.sort, view.down] = [index, first];
    else if (view.down === first) view.down = !first;
    else view.sort = -1; // the third click: the order they came in
    view.late = true;
    schedule();
  }

  function arrange(now) {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = store.rows.filter((row) => {
      const text = `${row.symbol} ${row.texts.join(" ")}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    view.order = view.sort < 0 ? found : inOrder(found, COLUMNS[view.sort], view.down);
    [view.sorted, view.late] = [now, false];
    titles.forEach((th, i) => {
      const arrow = i !== view.sort ? "" : view.down ? " ▾" : " ▴";
      set(th, COLUMNS[i].title + arrow);
      th.setAttribute("aria-sort", !arrow ? "none" : view.down ? "descending" : "ascending");
    });
  }

  function draw() {
    view.frame = 0;
    view.frames += 1;
    const now = performance.now();
    if (view.late || now - view.sorted > RESORT_MS) arrange(now);
    const count = view.order.length;
    const first = Math.min(Math.max(0, Math.floor(scroller.scrollTop / ROW) - 3), Math.max(0, count - 1));
    const last = Math.min(count, first + Math.ceil(scroller.clientHeight / ROW) + 6);
    height(above, first * ROW);
    height(below, (count - last) * ROW);
    while (view.pool.length < last - first) view.pool.push(makeRow());
    view.pool.forEach((line, i) => {
      const row = first + i < last ? view.order[first + i] : null;
      if (line.tr.hidden !== !row) line.tr.hidden = !row;
      if (row) fill(line, row, now);
    });
    const empty = store.rows.length ? "No row matches the filter." : store.seq < 0 ? "" : "No symbols yet.";
    set(nothing, count ? "" : empty);
    const frame = scroller.offsetHeight - scroller.clientHeight; // border, and a bar where there is one
    height(scroller, Math.min(13 * ROW, ROW * (Math.max(count, 2) + 1)) + frame);
  }

  function makeRow() {
    const tr = document.createElement("tr");
    body.insertBefore(tr, below.parentNode);
    const line = { tr, symbol: "", cells: COLUMNS.map((c) => make("td", c.number >= 0 ? "number" : "", tr)) };
    tr.addEventListener("click", () => choose(line.symbol));
    return line;
  }

  function fill(line, row, now) {
    line.symbol = row.symbol;
    const age = (now - row.heard) / 1000;
    const stale = age > model.get("stale_after");
    const [signal, recommendation, , calibration] = row.texts;
    const kind = signal !== "ALERT" ? "" : recommendation === "BUY" || recommendation === "SELL" ? "buy" : "alert";
    const chosen = row.symbol === model.get("selected");
    const name = [kind, stale && "stale", chosen && "chosen", row.symbol === view.cursor && "cursor"];
    const joined = name.filter(Boolean).join(" ");
    if (line.tr.className !== joined) line.tr.className = joined;
    if (line.tr.getAttribute("aria-selected") !== String(chosen)) line.tr.setAttribute("aria-selected", chosen);
    const urgent = calibration === "queued_urgent";
    COLUMNS.forEach((column, i) => {
      let shown = cellText(row, column);
      if (column.key === "state" && stale) shown = ageText(age);
      if (column.key === "calibration" && urgent) shown = "⚡ urgent";
      if (set(line.cells[i], shown)) line.cells[i].title = shown.length > 8 ? shown : ""; // it may be cut off
    });
    const marked = urgent ? "urgent" : "";
    if (line.cells[11].className !== marked) line.cells[11].className = marked;
  }

  function choose(symbol) {
    view.cursor = symbol;
    model.set("selected", symbol);
    model.save_changes();
    schedule();
  }

  function move(event) {
    const page = Math.max(1, Math.floor(scroller.clientHeight / ROW) - 2);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 };
    const count = view.order.length;
    if (!count || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = view.order.findIndex((row) => row.symbol === view.cursor);
    if (event.key === "Enter" || event.key === " ") {
      if (at >= 0) choose(view.cursor);
    } else if (event.key in steps) {
      const to = Math.min(count - 1, Math.max(0, (at < 0 && steps[event.key] > 0 ? -1 : at) + steps[event.key]));
      view.cursor = view.order[to].symbol;
      const top = to * ROW;
      const room = scroller.clientHeight - 2 * ROW; // below the head
      if (top < scroller.scrollTop) scroller.scrollTop = top;
      else if (top > scroller.scrollTop + room) scroller.scrollTop = top - room;
    } else return;
    event.preventDefault();
    event.stopPropagation();
    schedule();
  }

  const set = (node, text) => {
    if (node.textContent === text) return false;
    node.textContent = text;
    return true;
  };
  const height = (node, pixels) => {
    if (node.style.height !== `${pixels}px`) node.style.height = `${pixels}px`;
  };
  const changed = (whole) => {
    view.late = view.late || whole;
    schedule();
  };
  const told = () => {
    set(status, model.get("status"));
    set(problem, model.get("problem"));
    schedule();
  };
  const unwatch = watchTheme((dark) => {
    root.classList.toggle("dark", dark);
    if (model.get("dark") !== dark) {
      model.set("dark", dark);
      model.save_changes();
    }
  });
  scroller.addEventListener("scroll", schedule, { passive: true });
  scroller.addEventListener("keydown", move);
  filter.addEventListener("input", () => {
    view.late = true;
    scroller.scrollTop = 0;
    schedule();
  });
  filter.dataset.lmSuppressShortcuts = "true";
  filter.addEventListener("keydown", (event) => event.stopPropagation());
  store.changed.add(changed);
  for (const name of ["status", "problem", "selected", "stale_after"]) model.on(`change:${name}`, told);
  const ageing = setInterval(schedule, 1000);
  const living = setInterval(() => model.send({ kind: "here" }), HERE_MS);
  const resized = new ResizeObserver(schedule);
  resized.observe(scroller);
  root.aione = { store, view }; // for measurements
  told();

  return () => {
    store.changed.delete(changed);
    for (const name of ["status", "problem", "selected", "stale_after"]) model.off(`change:${name}`, told);
    clearInterval(ageing);
    clearInterval(living);
    resized.disconnect();
    unwatch();
    cancelAnimationFrame(view.frame);
  };
}

// Whether the page is dark: JupyterLab and voila say so, elsewhere the colour behind tells. ``tell`` is called at once.
function watchTheme(tell) {
  let last = null;
  const look = () => {
    const said = document.body.dataset.jpThemeLight;
    let dark = said === "false";
    if (said === undefined) {
      const parts = (getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g) || []).map(Number);
      const [red = 255, green = 255, blue = 255, alpha = 1] = parts;
      dark = alpha > 0 && 0.299 * red + 0.587 * green + 0.114 * blue < 128;
    }
    if (dark !== last) tell((last = dark));
  };
  const observer = new MutationObserver(look);
  observer.observe(document.body, { attributes: true, attributeFilter: ["class", "style", "data-jp-theme-light"] });
  look();
  return () => observer.disconnect();
}

export default () => {
  let store;
  return {
    initialize({ model }) {
      store = makeStore(model);
      model.send({ kind: "ready" });
    },
    render({ model, el }) {
      return makeView(store, model, el);
    },
  };
};
