"use strict";

// Every two seconds, while somebody looks, the page's content is fetched anew; the server renders it.
async function refresh() {
  if (document.hidden) {
    return;
  }
  try {
    const answer = await fetch(location.href, { cache: "no-store" });
    if (!answer.ok) {
      throw new Error(answer.statusText);
    }
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    document.querySelector("main").replaceWith(document.importNode(fresh.querySelector("main"), true));
    document.body.classList.remove("lost");
  } catch {
    document.body.classList.add("lost");
  }
}

setInterval(refresh, 2000);
