// Adds to the pages: Airflow's theme and time zone, links out of Airflow's frame, selections, and parts that
// are loaded again until there is nothing to wait for. The pages also work without this script.
"use strict";

(() => {
  const root = document.documentElement;

  // --- Airflow's settings. They are in the browser's storage, which pages with the same origin share ---

  const setting = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null; // storage may be forbidden
    }
  };

  const showTheme = () => {
    const chosen = setting("theme");
    const isDark = chosen === "dark" || (chosen !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
    root.dataset.theme = isDark ? "dark" : "light";
  };

  const timeZone = () => {
    const chosen = (setting("timezone") ?? "").replace(/^"|"$/g, "");
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (!chosen || chosen === "local") return own;
    try {
      new Intl.DateTimeFormat("en", { timeZone: chosen });
      return chosen;
    } catch {
      return own;
    }
  };

  showTheme(); // before anything is drawn
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", showTheme);

  // --- times in the person's time zone ---

  const showTimes = (part) => {
    const zone = timeZone();
    const format = new Intl.DateTimeFormat("en-CA", {
      timeZone: zone, year: "numeric", month: "2-digit", day: "2-digit",
      hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
    });
    const shown = (time, between) => {
      const parts = {};
      for (const { type, value } of format.formatToParts(new Date(time))) parts[type] = value;
      return `${parts.year}-${parts.month}-${parts.day}${between}${parts.hour}:${parts.minute}:${parts.second}`;
    };
    for (const element of part.querySelectorAll("time[datetime]")) element.textContent = shown(element.dateTime, " ");
    for (const input of part.querySelectorAll("input[data-time]")) input.value = shown(input.dataset.time, "T");
    for (const input of part.querySelectorAll("input[data-time-zone]")) input.value = zone;
    for (const element of part.querySelectorAll("[data-shows-time-zone]")) element.textContent = zone;
  };

  addEventListener("storage", ({ key }) => {
    if (key === "theme" || key === null) showTheme();
    if (key === "timezone" || key === null) showTimes(document);
  });

  // --- links that leave this page. Airflow's frame allows this only to scripts ---

  const leave = (event) => {
    const link = event.target.closest?.("a[data-leaves]");
    if (!link || window.parent === window || event.defaultPrevented) return;
    let outer;
    try {
      outer = window.parent.document;
    } catch {
      return; // the frame belongs to another site
    }
    event.preventDefault();
    const copy = outer.createElement("a");
    copy.href = link.href;
    const isNewTab = link.dataset.leaves === "new" || event.ctrlKey || event.metaKey || event.button === 1;
    if (isNewTab) {
      copy.target = "_blank";
      copy.rel = "noopener noreferrer";
    }
    outer.body.append(copy);
    copy.click();
    copy.remove();
  };
  addEventListener("click", leave);
  addEventListener("auxclick", (event) => { if (event.button === 1) leave(event); });

  // --- selected rows ---

  const countSelected = (form) => {
    const boxes = [...form.querySelectorAll("input[data-row]")];
    const selected = boxes.filter((box) => box.checked).length;
    const all = form.querySelector("input[data-all]");
    if (all) {
      all.checked = boxes.length > 0 && selected === boxes.length;
      all.indeterminate = selected > 0 && selected < boxes.length;
    }
    for (const element of form.querySelectorAll("[data-selected]")) element.textContent = String(selected);
    for (const button of form.querySelectorAll("button[data-needs-selection]")) button.disabled = selected === 0;
  };

  const prepareSelections = (part) => {
    for (const form of part.querySelectorAll("form[data-selects]")) {
      form.addEventListener("change", (event) => {
        if (event.target.matches("input[data-all]")) {
          for (const box of form.querySelectorAll("input[data-row]")) box.checked = event.target.checked;
        }
        countSelected(form);
      });
      countSelected(form);
    }
    for (const element of part.querySelectorAll("[data-needs-script]")) element.hidden = false;
  };

  // --- parts that are loaded again until they say that there is nothing to wait for ---

  const INTERVAL = 2000;

  const refresh = (element) => {
    const again = async () => {
      try {
        const answer = await fetch(element.dataset.refresh, { headers: { Accept: "text/html" }, credentials: "same-origin" });
        if (!answer.ok) throw new Error(String(answer.status));
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const fresh = page.getElementById(element.id);
        if (!fresh) return;
        element.replaceChildren(...fresh.childNodes);
        showTimes(element);
        if (fresh.dataset.refresh === undefined) {
          delete element.dataset.refresh;
          return;
        }
      } catch {
        // The server may be restarting. Try again.
      }
      setTimeout(again, document.hidden ? 5 * INTERVAL : INTERVAL);
    };
    setTimeout(again, INTERVAL);
  };

  // --- forms show that they are being sent, and are not sent twice ---

  addEventListener("submit", ({ target, submitter }) => {
    if (target.method !== "post") return;
    setTimeout(() => {
      if (submitter) {
        submitter.disabled = true;
        submitter.classList.add("busy");
      }
    });
  });
  addEventListener("pageshow", ({ persisted }) => {
    if (persisted) for (const button of document.querySelectorAll("button.busy")) {
      button.disabled = false;
      button.classList.remove("busy");
    }
  });

  addEventListener("DOMContentLoaded", () => {
    showTimes(document);
    prepareSelections(document);
    for (const element of document.querySelectorAll("[data-refresh]")) refresh(element);
  });
})();
