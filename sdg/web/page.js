/* Ties the frames on a picture to the rows of its table, and filters both. Listens on the document, because Gradio
   writes the HTML of a component anew with every answer. */
(() => {
  const all = (result, extra = "") => result.querySelectorAll(`[data-defect]${extra}`);

  const found = (target) => {
    const part = target instanceof Element ? target.closest(".sdg-result [data-defect]") : null;
    return part && { result: part.closest(".sdg-result"), number: part.dataset.defect };
  };

  // A row of the Detect tab's table, or an item of the Refine tab's list.
  const rowOf = (hit) => hit.result.querySelector(`:is(tr, li)[data-defect="${hit.number}"]`);

  const mark = (name, hit) => {
    for (const part of document.querySelectorAll(`.sdg-result [data-defect].${name}`)) part.classList.remove(name);
    if (!hit) return;
    for (const part of all(hit.result, `[data-defect="${hit.number}"]`)) part.classList.add(name);
  };

  const choose = (hit) => {
    for (const row of document.querySelectorAll(".sdg-result [aria-current]")) row.removeAttribute("aria-current");
    mark("chosen", hit);
    if (hit) rowOf(hit)?.setAttribute("aria-current", "true");
  };

  const toggle = (hit) => {
    const row = rowOf(hit);
    choose(row?.classList.contains("chosen") ? null : hit);
    return row;
  };

  const filter = (result) => {
    const least = {};
    for (const slider of result.querySelectorAll("[data-filter]")) {
      least[slider.dataset.filter] = Number(slider.value);
      const said = slider.dataset.filter === "confidence" ? `${Math.round(slider.value * 100)} %` : slider.value;
      slider.parentElement.querySelector("output").textContent = said;
      slider.setAttribute("aria-valuetext", said);
    }
    for (const part of all(result)) {
      // A defect without a confidence is not an unsure one.
      const { importance, confidence } = part.dataset;
      const unsure = confidence !== undefined && Number(confidence) < (least.confidence ?? 0);
      part.classList.toggle("filtered", unsure || Number(importance) < (least.importance ?? 1));
    }
    const rows = result.querySelectorAll("tr[data-defect]");
    const shown = result.querySelectorAll("tr[data-defect]:not(.filtered)").length;
    result.querySelector(".sdg-shown").textContent = `${shown} of ${rows.length} shown`;
    result.querySelector(".sdg-none").hidden = shown > 0;
    result.querySelector(".sdg-table").hidden = shown === 0;
  };

  document.addEventListener("mouseover", (event) => mark("lit", found(event.target)));
  document.addEventListener("focusin", (event) => mark("lit", found(event.target)));
  document.addEventListener("focusout", () => mark("lit", null));
  document.addEventListener("input", (event) => {
    if (event.target.matches?.("[data-filter]")) filter(event.target.closest(".sdg-result"));
  });
  document.addEventListener("click", (event) => {
    const hit = found(event.target);
    if (!hit) return;
    const row = toggle(hit);
    if (!event.target.closest("tr, li")) row?.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });
  document.addEventListener("keydown", (event) => {
    const hit = event.target instanceof Element && event.target.matches(":is(tr, li)[data-defect]") && found(event.target);
    if (event.key === "Escape") choose(null);
    if (!hit || !["Enter", " ", "ArrowDown", "ArrowUp"].includes(event.key)) return;
    event.preventDefault();
    if (event.key.startsWith("Arrow")) {
      const rows = [...hit.result.querySelectorAll(":is(tr, li)[data-defect]:not(.filtered)")];
      rows[rows.indexOf(event.target) + (event.key === "ArrowDown" ? 1 : -1)]?.focus();
    } else toggle(hit);
  });
})();
