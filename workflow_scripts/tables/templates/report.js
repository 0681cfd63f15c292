"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];

  // Colours: the system's, until the reader chooses; the choice is kept where there is storage.
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const theme = document.getElementById("theme");
  const tellTheme = () => theme?.setAttribute("aria-pressed", String(isDark()));
  theme?.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    tellTheme();
    try { localStorage.setItem("chexgenbench-theme", root.dataset.theme); } catch { /* for now */ }
  });
  systemDark.addEventListener("change", tellTheme);
  tellTheme();

  // Navigation on narrow windows: behind a button.
  const menu = document.getElementById("menu");
  const openMenu = (open) => {
    menu?.setAttribute("aria-expanded", String(open));
    document.getElementById("pages")?.classList.toggle("open", open);
  };
  menu?.addEventListener("click", () => openMenu(menu.getAttribute("aria-expanded") !== "true"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu?.getAttribute("aria-expanded") === "true") {
      openMenu(false);
      menu.focus();
    }
  });

  // Pages: the address after # names an element; its page is shown, the others are not.
  const pages = all(".page");
  const named = () => {
    try { return document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { return null; }
  };
  const route = (arriving) => {
    const target = named();
    if (target && !target.closest(".page") && !arriving) return;  // the skip link
    const page = target?.closest(".page") ?? pages[0];
    const changed = !page.classList.contains("current");
    pages.forEach((other) => other.classList.toggle("current", other === page));
    all("#pages a").forEach((link) => {
      if (link.hash === `#${page.id}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    document.title = `${page.dataset.title} – ${root.dataset.title}`;
    openMenu(false);
    const inner = target && target !== page && page.contains(target) ? target : null;
    for (let outer = inner; outer; outer = outer.parentElement?.closest("details")) {
      if (outer.matches("details")) outer.open = true;
    }
    const kept = history.state?.y;
    if (kept !== undefined) scrollTo(0, kept);
    else if (inner) inner.scrollIntoView();
    else if (changed || !arriving) scrollTo(0, 0);
    if (!arriving) {
      const focused = inner ?? page.querySelector("h1");
      focused.tabIndex = -1;
      focused.focus({ preventScroll: true });
    }
  };
  if (pages.length) {
    history.scrollRestoration = "manual";
    let waiting = 0;
    addEventListener("scroll", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => history.replaceState({ y: scrollY }, ""), 100);
    }, { passive: true });
    addEventListener("hashchange", () => { clearTimeout(waiting); route(false); });
    route(true);
  }
  document.querySelector(".skip")?.addEventListener("click", (event) => {
    event.preventDefault();
    const main = document.querySelector("main");
    main.focus();
    main.scrollIntoView();
  });

  // Printing: what is folded is opened; the whole report where that was asked for.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = all("details:not([open])");
    folded.forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => {
    folded.forEach((details) => { details.open = false; });
    root.classList.remove("print-all");
  });
  document.getElementById("print")?.addEventListener("click", () => {
    root.classList.add("print-all");
    print();
  });

  // Sorting: dashes stay last in either direction; the blocks of a table never mix.
  const key = (cell) => {
    if (cell.dataset.value === undefined) return cell.textContent.trim();
    return cell.dataset.value === "" ? null : Number(cell.dataset.value);
  };
  const isDash = (value) => value === null || value === "–" || value === "";
  const compare = (a, b, sign) => {
    if (isDash(a) || isDash(b)) return isDash(a) - isDash(b);
    if (typeof a === "number") return sign * (a - b);
    return sign * a.localeCompare(b, "en", { numeric: true });
  };
  const turn = (header, headers) => {
    const next = header.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
    headers.forEach((other) => other.setAttribute("aria-sort", "none"));
    header.setAttribute("aria-sort", next);
    return next === "ascending" ? 1 : -1;
  };
  all('table[data-sort="rows"]').forEach((table) => {
    const headers = all("thead th[aria-sort]", table);
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
  all('table[data-sort="columns"]').forEach((table) => {
    const headers = all("tbody th[aria-sort]", table);
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

  // A table that is wider than the page says so above it, and fades where it goes on.
  const boxes = new ResizeObserver((entries) => entries.forEach(({ target }) => tellWidth(target)));
  const tellWidth = (box) => {
    const hint = box.previousElementSibling;
    const hidden = [...box.querySelectorAll("thead th")].filter(
      (header) => header.getBoundingClientRect().right > box.getBoundingClientRect().right + 2);
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
    box.classList.toggle("scrolls", !hint.hidden && hidden.length > 0);
    hint.textContent = hidden.length
      ? `${hidden.length} more ${hidden.length === 1 ? "column" : "columns"}: scroll sideways →`
      : "← Scroll back for the first columns";
  };
  all(".scroll").forEach((box) => {
    const hint = document.createElement("p");
    hint.className = "more";
    hint.hidden = true;
    box.before(hint);
    box.addEventListener("scroll", () => tellWidth(box), { passive: true });
    boxes.observe(box);
  });

  // Enlarged images and figures: Escape, the button and a click outside close; focus goes back.
  const box = document.getElementById("lightbox");
  const enlarge = (shown, words, from) => {
    box.querySelector(".shown").replaceChildren(shown);
    box.querySelector("p").textContent = words;
    box.showModal();
    box.addEventListener("close", () => from.focus(), { once: true });
  };
  if (box) {
    all(".zoom").forEach((button) => button.addEventListener("click", () => {
      const image = button.firstElementChild;
      enlarge(image.cloneNode(true), image.alt, button);
    }));
    all("figure.drawn").forEach((figure) => {
      const drawing = figure.querySelector("svg");
      const words = figure.querySelector("figcaption").textContent;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "enlarge";
      button.setAttribute("aria-label", `Enlarge: ${drawing.getAttribute("aria-label")}`);
      button.textContent = "Enlarge";
      drawing.before(button);
      const open = () => enlarge(drawing.cloneNode(true), words, button);
      button.addEventListener("click", open);
      drawing.addEventListener("click", open);
    });
    box.addEventListener("click", (event) => { if (event.target === box) box.close(); });
  }
})();
