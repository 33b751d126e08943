// Asks a destination without loading the page again: its answer is put where the node's own page
// would have it, and read out from there.
"use strict";

async function ask(form) {
  const place = form.querySelector("[role=status]");
  const button = form.querySelector("button");
  form.setAttribute("aria-busy", "true");
  button.setAttribute("aria-disabled", "true");
  place.textContent = "asking …";
  try {
    const answer = await fetch(form.action, { method: "POST" });
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const said = page.getElementById(place.id);
    if (said === null) {
      form.submit(); // logged out, for example: the node says why
      return;
    }
    place.replaceChildren(...said.childNodes);
  } catch {
    place.textContent = "The node does not answer.";
  }
  form.removeAttribute("aria-busy");
  button.removeAttribute("aria-disabled");
}

document.addEventListener("submit", (event) => {
  if (event.target.matches("form.echo")) {
    event.preventDefault();
    if (!event.target.hasAttribute("aria-busy")) {
      ask(event.target);
    }
  }
});
