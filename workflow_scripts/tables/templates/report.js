"use strict";
(() => {
  // Theme: the system's, until the reader chooses; #dark and #light in the address choose too.
  const root = document.documentElement;
  const wanted = location.hash.slice(1);
  if (wanted === "dark" || wanted === "light") root.dataset.theme = wanted;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // Sorting: dashes stay last in either direction; the blocks of a table never mix.
  const key = (cell) => {
    if (cell.dataset.value === undefined) return cell.textContent.trim().toLowerCase();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (a < b ? -1 : a > b ? 1 : 0);
  };
  const turn = (header, headers) => {
    const next = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    headers.forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", next);
    return next === "ascending" ? 1 : -1;
  };
  document.querySelectorAll('table[data-sort="rows"]').forEach((table) => {
    const headers = [...table.querySelectorAll("thead th[aria-sort]")];
    headers.forEach((header) => header.querySelector(".sort").addEventListener("click", () => {
      const sign = turn(header, headers);
      for (const body of table.tBodies) {
        [...body.rows]
          .map((row) => [key(row.cells[header.cellIndex]), row])
          .sort((a, b) => compare(a[0], b[0], sign))
          .forEach(([, row]) => body.append(row));
      }
    }));
  });
  document.querySelectorAll('table[data-sort="columns"]').forEach((table) => {
    const headers = [...table.querySelectorAll("tbody th[aria-sort]")];
    const markBlocks = () => {
      const kinds = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.kind);
      for (const row of table.rows) {
        [...row.cells].forEach((cell, i) =>
          cell.classList.toggle("first-of-block", i > 1 && kinds[i] !== kinds[i - 1]));
      }
    };
    markBlocks();
    headers.forEach((header) => header.querySelector(".sort").addEventListener("click", () => {
      const sign = turn(header, headers);
      const kinds = [...table.tHead.rows[0].cells].map((cell) => cell.dataset.kind);
      const blocks = [...new Set(kinds.slice(1))];
      const order = kinds.map((kind, i) => [kind, i]).slice(1).sort((a, b) =>
        blocks.indexOf(a[0]) - blocks.indexOf(b[0]) ||
        compare(key(header.parentNode.cells[a[1]]), key(header.parentNode.cells[b[1]]), sign));
      for (const row of [...table.rows]) {
        const cells = [...row.cells];
        order.forEach(([, i]) => row.append(cells[i]));
      }
      markBlocks();
    }));
  });

  // An enlarged image; Escape and the button close it, a click outside does too.
  const box = document.getElementById("lightbox");
  document.querySelectorAll(".zoom").forEach((button) => button.addEventListener("click", () => {
    const image = button.querySelector("img");
    box.querySelector("img").src = image.src;
    box.querySelector("img").alt = image.alt;
    box.querySelector("p").textContent = image.alt;
    box.showModal();
  }));
  box?.addEventListener("click", (event) => { if (event.target === box) box.close(); });
})();
