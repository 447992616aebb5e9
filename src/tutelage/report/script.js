// The page reads the same without this: it only names the point that the pointer (or an arrow key) is at, and
// lets the reader choose dark or light.
(() => {
  "use strict";
  const root = document.documentElement;
  const tip = document.getElementById("tip");
  const ring = document.createElement("div");
  ring.className = "near";

  const hide = () => {
    tip.hidden = true;
    ring.remove();
  };

  const show = (area, point) => {
    const box = area.getBoundingClientRect();
    tip.textContent = point[2];
    tip.hidden = false;
    ring.style.left = `${100 * point[0]}%`;
    ring.style.top = `${100 * point[1]}%`;
    area.append(ring);
    const x = box.left + point[0] * box.width;
    const y = box.top + point[1] * box.height;
    const left = Math.min(Math.max(x - tip.offsetWidth / 2, 8), root.clientWidth - tip.offsetWidth - 8);
    const above = y - tip.offsetHeight - 14;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : y + 16}px`;
  };

  for (const area of document.querySelectorAll("[data-points]")) {
    const points = JSON.parse(area.dataset.points);
    let current = -1;
    // The browser's own tooltip of the chart's title would lie over ours; its name stays in aria-label.
    area.querySelector("svg > title")?.remove();
    area.tabIndex = 0;
    area.addEventListener("pointermove", (event) => {
      const box = area.getBoundingClientRect();
      const far = (p) => Math.hypot(box.left + p[0] * box.width - event.clientX, box.top + p[1] * box.height - event.clientY);
      const nearest = points.reduce((best, p) => (far(p) < far(best) ? p : best));
      if (far(nearest) < 60) show(area, nearest);
      else hide();
    });
    area.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      current = (current + step + points.length) % points.length;
      show(area, points[current]);
    });
    area.addEventListener("pointerleave", hide);
    area.addEventListener("blur", hide);
  }
  addEventListener("scroll", hide, { passive: true });

  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    const now = root.dataset.theme || system;
    root.dataset.theme = now === "dark" ? "light" : "dark";
  });

  addEventListener("beforeprint", () => {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
  });
})();
