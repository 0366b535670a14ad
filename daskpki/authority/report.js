"use strict";

// Search, filter and sort in the table of holders. Without this script all rows are there, in the order of their end.
const order = new Intl.Collator("en", { numeric: true });
const filters = document.querySelector(".filters");
const table = document.querySelector("#holders table");

function values(name) {
  const column = [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent === name);
  return (row) => row.cells[column].textContent;
}

function narrow() {
  const role = values("role"), state = values("state");
  const wanted = filters.search.value.trim().toLowerCase();
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    const fits = (!filters.role.value || role(row) === filters.role.value)
      && (!filters.state.value || state(row) === filters.state.value)
      && row.textContent.toLowerCase().includes(wanted);
    row.hidden = !fits;
    shown += fits;
  }
  filters.shown.value = `${shown.toLocaleString("en")} of ${table.tBodies[0].rows.length.toLocaleString("en")}`;
}

function sort(heading) {
  const backwards = heading.getAttribute("aria-sort") === "ascending";
  const text = values(heading.textContent);
  for (const cell of table.tHead.rows[0].cells) {
    cell.removeAttribute("aria-sort");
  }
  heading.setAttribute("aria-sort", backwards ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].sort((one, other) => order.compare(text(one), text(other)));
  table.tBodies[0].append(...(backwards ? rows.reverse() : rows));
}

if (table) {
  filters.hidden = false;
  filters.addEventListener("input", narrow);
  filters.addEventListener("submit", (event) => event.preventDefault());
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => sort(heading));
  }
  narrow();
}
