"use strict";
// Times in the reader's zone, pages that change by themselves, a schedule judged while it is typed.
(() => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `rowcron_zone=${encodeURIComponent(zone)}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
  const shown = document.getElementById("zone");
  if (shown) shown.textContent = zone;
  let ahead = 0; // the database's clock less ours, in ms

  const pad = (n) => String(n).padStart(2, "0");
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
  const clock = (t) => `${pad(t.getHours())}:${pad(t.getMinutes())}:${pad(t.getSeconds())}`;
  const day = (t) => `${pad(t.getDate())} ${months[t.getMonth()]}`;
  const full = (t) => `${days[t.getDay()]} ${day(t)} ${t.getFullYear()} ${clock(t)}`;
  const length = (seconds) => {
    const s = Math.max(0, Math.round(seconds));
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min ${s < 600 ? (s % 60) + " s" : ""}`.trim();
    if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
    return `${Math.floor(s / 86400)} d`;
  };
  const say = (style, t, now) => {
    const away = (t - now) / 1000;
    if (style === "elapsed") return `for ${length(-away)}`;
    if (style === "relative") return away > 0 ? `in ${length(away)}` : `${length(-away)} ago`;
    if (style === "long") return full(t);
    if (style === "clock") return t.toDateString() === now.toDateString() ? clock(t) : `${day(t)} ${pad(t.getHours())}:${pad(t.getMinutes())}`;
    return t.toDateString() === now.toDateString() ? clock(t) : `${day(t)} ${clock(t)}`;
  };
  const tell = (root) => {
    const now = new Date(Date.now() + ahead);
    for (const e of root.querySelectorAll("time[datetime]")) {
      const t = new Date(e.dateTime);
      if (isNaN(t)) continue;
      const text = say(e.dataset.style, t, now);
      if (e.textContent !== text) e.textContent = text;
      if (!e.title) e.title = `${full(t)} (${zone})`;
    }
  };
  tell(document);
  setInterval(() => document.hidden || tell(document), 1000);

  // the middle of the picture first
  for (const plot of document.querySelectorAll(".tl-plot")) plot.scrollLeft = (plot.scrollWidth - plot.clientWidth) / 2;

  // put new content in place without taking the focus, or the place, from whoever uses the keyboard
  const replace = (section, html) => {
    const focus = section.contains(document.activeElement) ? document.activeElement : null;
    const regions = [...section.querySelectorAll("[tabindex][data-key]")];
    const places = regions.map((e) => [e.dataset.key, e.scrollLeft, e.scrollTop]);
    const keyed = (key) => key && section.querySelector(`[data-key="${CSS.escape(key)}"]`);
    section.innerHTML = html; // written by our own templates, which escape what they are given
    tell(section);
    for (const [key, left, top] of places) keyed(key)?.scrollTo(left, top);
    if (!focus) return;
    const again = keyed(focus.dataset.key);
    if (!again) section.tabIndex = -1; // what had it is gone: from here on it is near
    (again || section).focus({ preventScroll: true });
  };
  const trouble = document.getElementById("trouble");
  const live = document.body.dataset.live;
  if (live && window.EventSource) {
    const SOONEST = 2000, LATEST = 60000; // ms until it is tried again
    const address = new URL(live, location);
    const deeds = new Map(); // what each event does, whichever stream brings it
    let source = null, timer, wait = SOONEST;
    const on = (name, deed) => {
      if (deeds.has(name)) return;
      deeds.set(name, deed);
      if (source) source.addEventListener(name, deed);
    };
    const listen = (root) => { // to the sections there are, and to those that come within one
      for (const { dataset: { section: name } } of root.querySelectorAll("[data-section]")) {
        on(name, (event) => {
          const section = document.querySelector(`[data-section="${name}"]`);
          if (!section) return;
          replace(section, event.data);
          if (name === "name") document.title = `${section.textContent} · rowcron`;
          listen(section);
        });
      }
    };
    const close = () => {
      clearTimeout(timer);
      if (source) source.close();
      source = null;
      document.body.removeAttribute("data-connected");
    };
    // a browser opens six connections to a host for all of its pages: only one in view holds one
    const open = () => {
      clearTimeout(timer);
      if (source || document.hidden) return;
      const mine = source = new EventSource(address);
      address.searchParams.delete("mark"); // the next one tells all: the page has changed since
      for (const [name, deed] of deeds) mine.addEventListener(name, deed);
      mine.addEventListener("open", () => {
        wait = SOONEST;
        trouble.textContent = "";
        document.body.setAttribute("data-connected", "");
      });
      mine.addEventListener("error", async () => {
        if (mine !== source) return;
        const refused = mine.readyState === EventSource.CLOSED; // an answer, but no stream
        close();
        trouble.textContent = "The connection is lost; trying again.";
        timer = setTimeout(open, wait * (0.5 + Math.random() / 2)); // not all pages at once
        wait = Math.min(2 * wait, LATEST);
        if (refused && await status() === 401) location.reload(); // to sign in
      });
    };
    const status = async () => { // which an EventSource does not tell
      const asked = new AbortController();
      try {
        return (await fetch(address, { signal: asked.signal, cache: "no-store" })).status;
      } catch { return 0; } finally { asked.abort(); }
    };
    on("trouble", (event) => { trouble.textContent = event.data; });
    on("clock", (event) => { ahead = Number(event.data) * 1000 - Date.now(); if (Math.abs(ahead) < 1500) ahead = 0; });
    on("bye", (event) => { if (event.data) { close(); location.reload(); } });
    listen(document);
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) close();
      else { wait = SOONEST; tell(document); open(); }
    });
    addEventListener("pagehide", close);
    addEventListener("pageshow", open); // also when the browser had kept the page
    open();
  }

  // forms inside live sections come without the proof that this page was given
  const proof = document.querySelector("meta[name=csrf]");
  addEventListener("submit", (event) => {
    const form = event.target;
    if (proof && form.method === "post" && !form.elements.csrf) {
      const input = document.createElement("input");
      input.type = "hidden"; input.name = "csrf"; input.value = proof.content;
      form.append(input);
    }
  });

  const form = document.querySelector("form[data-try]");
  if (form && proof) {
    const box = document.getElementById("try");
    const fields = ["schedule", "timezone", "name"].map((name) => form.elements[name]);
    if (!fields[1].dataset.touched && fields[1].value === "UTC" && !form.elements.version && form.dataset.zone) fields[1].value = zone;
    let timer, asked = 0;
    const judge = async () => {
      const number = ++asked;
      if (!fields[0].value.trim()) { box.textContent = "It has no schedule: it runs on demand."; return; }
      const body = new URLSearchParams(fields.map((f) => [f.name, f.value]));
      body.set("csrf", proof.content);
      try {
        const answer = await fetch(form.dataset.try, { method: "POST", body, credentials: "same-origin" });
        const text = await answer.text();
        if (number === asked && answer.ok) replace(box, text);
      } catch { if (number === asked) box.textContent = "The server cannot be reached."; }
    };
    for (const field of fields) field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(judge, 250); });
    judge();
  }
})();
