"use strict";

// Plots: each box names the script element that holds its figures, by the names of its menu.
const NARROW = 760;
const PAPER = 680;
const config = {
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

function draw(box, name, width = box.clientWidth) {
  const figure = box.figures[name];
  const layout = { ...figure.layout, width };
  if (width < NARROW) {
    const title = { ...layout.legend.title, side: "top" };
    const below = { orientation: "h", y: -0.2, yanchor: "top", maxheight: 140, entrywidth: 0 };
    layout.legend = { ...layout.legend, ...below, title };
  }
  box.shown = name;
  Plotly.react(box, figure.data, layout, config).then(() => box.classList.add("drawn"));
}

const boxes = [...document.querySelectorAll(".plot")];
for (const box of boxes) {
  box.figures = JSON.parse(document.getElementById(box.dataset.figures).textContent);
  draw(box, Object.keys(box.figures)[0]);
}
for (const select of document.querySelectorAll("select[data-plot]")) {
  const box = document.getElementById(select.dataset.plot);
  select.value = box.shown; // browsers keep a choice over a reload
  select.addEventListener("change", () => draw(box, select.value));
}
let width = window.innerWidth;
let waiting = 0;
window.addEventListener("resize", () => {
  if (window.innerWidth === width) return;
  width = window.innerWidth;
  clearTimeout(waiting);
  waiting = setTimeout(() => boxes.forEach((box) => draw(box, box.shown)), 150);
});
window.addEventListener("beforeprint", () => boxes.forEach((box) => draw(box, box.shown, PAPER)));
window.addEventListener("afterprint", () => boxes.forEach((box) => draw(box, box.shown)));

// Tables: a click on a head sorts by it, another one the other way round; empty cells come last.
function compare(a, b) {
  if (a === "" || b === "") return a === b ? 0 : a === "" ? Infinity : -Infinity;
  const difference = Number(a) - Number(b);
  return Number.isNaN(difference) ? a.localeCompare(b, undefined, { numeric: true }) : difference;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const order = compare(value(a), value(b));
        return falling && Number.isFinite(order) ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// Pictures: a click shows one in its own size.
const large = document.getElementById("large");
for (const image of document.querySelectorAll(".pictures img")) {
  image.addEventListener("click", () => {
    large.firstElementChild.src = image.src;
    large.firstElementChild.alt = image.alt;
    large.showModal();
  });
}
large.addEventListener("click", () => large.close());
