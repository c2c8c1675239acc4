"use strict";

const say = text => { document.getElementById("said").textContent = text; };
const parse = html => document.createRange().createContextualFragment(html);

// Live: what comes appears by itself.
const list = document.getElementById("answers");
if (list && list.dataset.news) {
  const address = new URL(list.dataset.news, location.href);
  address.searchParams.set("after", list.dataset.after);
  const news = new EventSource(address);
  news.onmessage = event => {
    const rows = parse(JSON.parse(event.data));
    for (const row of rows.children) row.classList.add("new");
    list.prepend(rows);
    while (list.children.length > 300) list.lastElementChild.remove();
    document.getElementById("nothing")?.remove();
  };
  addEventListener("pagehide", () => news.close());
}
for (const field of document.querySelectorAll(".filters select, .filters input[type=date]")) {
  field.addEventListener("change", () => field.form.requestSubmit());
}
