"use strict";

const at = id => document.getElementById(id);
const parse = html => document.createRange().createContextualFragment(html);
const say = text => { at("said").textContent = text; };
const isTyping = () => document.activeElement.matches("select, input:not([type=checkbox])") || document.querySelector("dialog[open]");
const onKey = act => addEventListener("keydown", event => {
  if (!event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey && !isTyping() && act(event.key, event)) event.preventDefault();
});
const onControl = () => document.activeElement.matches("a, button");  // whose Enter is their own

// What is sent is sent once, however often somebody clicks; who comes back may send it again.
addEventListener("submit", event => {
  if (event.defaultPrevented || event.target.method !== "post") return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => { for (const form of document.forms) delete form.dataset.sent; });

// Whoever goes on does not wait for pictures that are still being made: they hold all connections.
addEventListener("beforeunload", () => {
  for (const image of document.images) if (!image.complete) image.removeAttribute("src");
});

// Live: what comes appears by itself; a filter counts as soon as it is chosen.
const list = at("answers");
if (list?.dataset.news) {
  const address = new URL(list.dataset.news, location.href);
  let news, after = list.dataset.after;
  const follow = () => {
    news?.close();
    if (document.hidden) return;  // a browser opens six connections to a host, and others may be looked at
    address.searchParams.set("after", after);
    news = new EventSource(address);
    news.onmessage = event => {
      after = event.lastEventId;
      const rows = parse(JSON.parse(event.data));
      for (const row of rows.children) row.classList.add("new");
      list.prepend(rows);
      while (list.children.length > 300) list.lastElementChild.remove();
      at("nothing")?.remove();
    };
  };
  document.addEventListener("visibilitychange", follow);
  addEventListener("pagehide", () => news?.close());
  follow();
}
for (const field of document.querySelectorAll(".filters select, .filters input[type=date]"))
  field.addEventListener("change", () => field.form.requestSubmit());

// Review: the next image is there before the key is up; labels are sent behind.
const cases = at("cases");
if (cases) {
  const done = [];
  let sending = Promise.resolve(), isFetching = false, clicked = -Infinity, labelled = 0, began = 0;
  const current = () => cases.querySelector("article:not([hidden])");

  const post = async (path, fields) => {
    try {
      const headers = { Accept: "application/json" };
      const answer = await fetch(path, { method: "POST", headers, body: new URLSearchParams(fields), keepalive: true });
      return await answer.json();
    } catch {
      return { failed: ["The page does not answer: is `digitd web` still running?"] };
    }
  };
  const count = step => {
    labelled += step;
    began ||= Date.now();
    const left = Number(at("progress").dataset.left) - labelled, minutes = (Date.now() - began) / 60000;
    if (at("left")) at("left").textContent = Math.max(0, left).toLocaleString("en");
    at("pace").textContent = ` · ${labelled} done` + (labelled > 4 ? `, ${Math.round(labelled / minutes)} a minute` : "");
  };
  const ahead = async () => {
    const further = cases.querySelector(".further");
    if (isFetching || !further?.dataset.further || cases.querySelectorAll("article").length > 4) return;
    isFetching = true;
    try {
      const answer = await fetch("/review/ahead" + further.dataset.further);
      const more = parse(await answer.text());
      for (const article of more.querySelectorAll("article")) article.hidden = true;
      further.replaceWith(more);
    } catch { /* the next key tries again */ }
    isFetching = false;
    if (!current()) show();
    else ahead();
  };
  const show = () => {
    const next = cases.querySelector("article");
    at("all-done").hidden = Boolean(next) || isFetching;
    if (next) {
      next.hidden = false;
      next.focus({ preventScroll: true });
    }
    ahead();
  };
  const putBack = article => {
    const now = current();
    if (now) now.hidden = true;
    cases.prepend(article);
    show();
  };
  const label = value => {
    const article = current();
    const button = article?.querySelector(`button[value="${value}"]`);
    if (!button || button.disabled) return;
    const step = { article, undo: "" };
    done.push(step);
    article.remove();
    show();
    count(1);
    say(`${article.dataset.name}: ${value === "none" ? "no digit" : value}`);
    sending = sending.then(() => post("/label", { answer: article.dataset.answer, label: value })).then(answer => {
      step.undo = answer.undo;
      if (answer.undo) return;
      done.splice(done.indexOf(step), 1);
      count(-1);
      putBack(article);
      say(answer.failed.join(" "));
    });
  };
  const later = () => {
    current()?.remove();
    show();
  };
  const undo = () => {
    sending = sending.then(async () => {
      const step = done.pop();
      if (!step) return say("There is nothing to undo.");
      const answer = await post("/undo", { undo: step.undo });
      count(-1);
      putBack(step.article);
      say(answer.failed.length ? answer.failed.join(" ") : `${step.article.dataset.name}: undone`);
    });
  };

  cases.addEventListener("submit", event => {
    event.preventDefault();
    label(event.submitter.value);
  });
  cases.addEventListener("click", event => {
    if (!event.target.closest("button, .later") || !event.detail) return;  // a key on them, or beside them
    const isDouble = event.timeStamp - clicked < 300;  // which is one answer, not one more for the next image
    clicked = event.timeStamp;
    if (isDouble) event.preventDefault();
  }, true);
  cases.addEventListener("click", event => {
    if (event.defaultPrevented || !event.target.closest(".later")) return;
    event.preventDefault();
    later();
  });
  onKey(key => {
    if (key >= "0" && key <= "9" && key.length === 1) label(key);
    else if (key === "Enter" && !onControl()) label(current()?.dataset.read);
    else if (key === "x") label("none");
    else if (key === "s") later();
    else if (key === "u") undo();
    else if (key === "?") at("keys").showModal();
    else return false;
    return true;
  });
  at("show-keys").hidden = false;
  at("show-keys").addEventListener("click", () => at("keys").showModal());
  show();
}

// Grid: arrows move, Enter confirms.
const grid = document.querySelector("form.grid");
if (grid) {
  const boxes = [...grid.querySelectorAll("input[type=checkbox]")];
  const columns = boxes.filter(box => box.closest("li").offsetTop === boxes[0].closest("li").offsetTop).length || 1;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  onKey(key => {
    const place = boxes.indexOf(document.activeElement);
    if (key in steps) boxes[place < 0 ? 0 : place + steps[key]]?.focus();
    else if (key === "Enter" && !onControl()) grid.querySelector("button.main").click();
    else return false;
    return true;
  });
}
onKey(key => key === "u" && document.querySelector(".grid-view .done form")?.requestSubmit() === undefined && Boolean(grid));

// Parts that change by themselves: asked for again while somebody looks, and left alone while the focus is in them.
for (const part of document.querySelectorAll("[data-refresh]")) {
  setInterval(async () => {
    if (document.hidden || part.contains(document.activeElement)) return;
    const response = await fetch(part.dataset.refresh).catch(() => null);
    if (response?.ok) part.replaceChildren(parse(await response.text()));
  }, part.dataset.seconds * 1000);
}
