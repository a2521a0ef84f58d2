"use strict";
(() => {
  const SIZE = 100;
  const { columns, rows, sections, labels } = JSON.parse(document.getElementById("data").textContent);
  const table = document.getElementById("results");
  const body = table.tBodies[0];
  const find = document.getElementById("find");
  const only = document.getElementById("only");
  const shown = document.getElementById("shown");
  const pages = document.getElementById("pages");
  const [back, next, where] = ["back", "next", "page"].map((id) => document.getElementById(id));
  const detail = document.getElementById("detail");
  const all = rows.map((_, index) => index);
  const count = new Intl.NumberFormat("en");
  let chosen = all;
  let sorted = { column: -1, down: false };
  let page = 0;
  let haystack = null;

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined && text !== null) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const line = (index) => {
    const row = rows[index];
    const made = element("tr", null, row.kind);
    const link = element("a", row.cells[0]);
    link.href = `#r${index}`;
    const path = element("td", null, "path");
    path.append(link);
    made.append(path);
    columns.slice(1).forEach((column, offset) => {
      const text = row.cells[offset + 1];
      const cell = element("td", offset === 0 ? null : text, column.number ? "number" : "");
      if (offset === 0) cell.append(element("span", text, `badge ${row.kind}`));
      made.append(cell);
    });
    return made;
  };

  const draw = () => {
    const last = Math.max(0, Math.ceil(chosen.length / SIZE) - 1);
    page = Math.min(page, last);
    const from = page * SIZE;
    const part = chosen.slice(from, from + SIZE);
    body.replaceChildren(...part.map(line));
    shown.textContent = chosen.length === rows.length
      ? `${count.format(rows.length)} results.`
      : `${count.format(chosen.length)} of ${count.format(rows.length)} results.`;
    where.textContent = part.length ? `${count.format(from + 1)} to ${count.format(from + part.length)}` : "none";
    pages.hidden = last === 0;
    back.disabled = page === 0;
    next.disabled = page === last;
  };

  const compare = (column, down) => (one, other) => {
    const [a, b] = [rows[one].sort[column], rows[other].sort[column]];
    if (a === b) return one - other;
    if (a === null) return 1;
    if (b === null) return -1;
    return (a < b ? -1 : 1) * (down ? -1 : 1);
  };

  const choose = () => {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length && haystack === null) {
      haystack = rows.map((row) => [...row.cells, row.headline, row.why].join("\n").toLowerCase());
    }
    chosen = all.filter((index) => (!only.value || rows[index].kind === only.value)
      && words.every((word) => haystack[index].includes(word)));
    if (sorted.column >= 0) chosen.sort(compare(sorted.column, sorted.down));
    page = 0;
    draw();
  };

  const sortBy = (column) => {
    sorted = { column, down: sorted.column === column && !sorted.down };
    for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
    table.tHead.rows[0].cells[column].setAttribute("aria-sort", sorted.down ? "descending" : "ascending");
    choose();
  };

  const facts = (pairs) => {
    const list = element("dl", null, "facts");
    for (const [label, value] of pairs) {
      if (value === null || value === "") continue;
      const pair = element("div");
      pair.append(element("dt", label), element("dd", value));
      list.append(pair);
    }
    return list;
  };

  const open = () => {
    const match = /^#r(\d+)$/.exec(location.hash);
    const index = match ? Number(match[1]) : -1;
    detail.replaceChildren();
    if (index < sections || index >= rows.length) return;
    const row = rows[index];
    const made = element("article", null, `result ${row.kind}`);
    const head = element("h2");
    head.append(element("span", row.cells[1], `badge ${row.kind}`), ` ${row.headline}`);
    const pair = element("p", null, "pair");
    pair.append(element("span", row.cells[0], "path"), " ", element("span", "compared with", "quiet"), ` ${row.cells[3]}`);
    const close = element("p", null, "back");
    const link = element("a", labels.back);
    link.href = "#overview";
    close.append(link);
    made.append(pair, head, element("p", row.why, "why"));
    made.append(facts([...columns.slice(2).map((column, i) => [column.label, row.cells[i + 2]]), ...row.more]));
    made.append(element("p", labels.brief, "quiet"), close);
    detail.append(made);
    detail.focus();
    made.scrollIntoView();
  };

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = element("button", head.textContent);
    button.type = "button";
    button.addEventListener("click", () => sortBy(column));
    head.replaceChildren(button);
  });
  let waiting = 0;
  find.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(choose, 60);
  });
  only.addEventListener("change", choose);
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  const turn = (by) => {
    page += by;
    draw();
    table.scrollIntoView({ block: "start" });
  };
  back.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  window.addEventListener("hashchange", open);
  window.addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => { part.open = true; }));
  document.getElementById("controls").hidden = rows.length < 2;
  draw();
  open();
})();
