// Before anything is drawn: pages are shown one at a time, in the colours chosen last.
document.documentElement.classList.add("js");
try {
  const kept = localStorage.getItem("chexgenbench-theme");
  if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
} catch { /* no storage, for example in a file opened from disk: the system's colours */ }
