// Keeps the page up to date: fetches it again when the node says that something has changed, else
// from time to time, and changes what differs, in place, so that focus, scroll position, selected
// text and opened details stay as they are.
"use strict";

const REST_MS = 1000; // after each time, so that a busy node is not kept busy by its pages
const PERIOD_MS = 1000;
const TOLD_MS = 20000; // where the node says what changes, only what counts the time grows old
const LONGEST_MS = 30000;
const ANSWER_MS = 10000;

function matching(wanted, cursor, parent) {
  if (wanted.id) {
    return Array.from(parent.children).find((child) => child.id === wanted.id) ?? null;
  }
  const isSame = cursor !== null && !cursor.id && cursor.nodeName === wanted.nodeName;
  return isSame ? cursor : null;
}

function syncAttributes(node, wanted) {
  for (const { name } of Array.from(node.attributes)) {
    const isReaders = node.nodeName === "DETAILS" && name === "open";
    if (!wanted.hasAttribute(name) && !isReaders) {
      node.removeAttribute(name);
    }
  }
  for (const { name, value } of wanted.attributes) {
    if (node.getAttribute(name) !== value) {
      node.setAttribute(name, value);
    }
  }
}

function sync(node, wanted) {
  if (node.isEqualNode(wanted)) {
    return;
  }
  if (node.nodeType !== Node.ELEMENT_NODE) {
    node.data = wanted.data;
    return;
  }
  if (node.dataset.kept !== undefined && node.dataset.kept === wanted.dataset.kept) {
    return; // the reader's own, and of the same result
  }
  syncAttributes(node, wanted);
  let cursor = node.firstChild;
  for (const child of Array.from(wanted.childNodes)) {
    const match = matching(child, cursor, node);
    if (match === null) {
      node.insertBefore(document.importNode(child, true), cursor);
      continue;
    }
    if (match === cursor) {
      cursor = cursor.nextSibling;
    } else {
      node.insertBefore(match, cursor);
    }
    sync(match, child);
  }
  while (cursor !== null) {
    const next = cursor.nextSibling;
    cursor.remove();
    cursor = next;
  }
}

async function refresh() {
  const answer = await fetch(location.href, {
    cache: "no-store",
    signal: AbortSignal.timeout(ANSWER_MS),
  });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page.getElementById("main");
  if (fresh === null) {
    throw new Error("not a page of the node");
  }
  sync(document.getElementById("main"), fresh);
  sync(document.getElementById("roles"), page.getElementById("roles"));
  document.title = page.title;
}

// What the node says. Only a page that is seen listens: a browser has six connections to a node.

let events = null;
let wake = () => {};
let isOpen = false;
let isTold = false;

function told() {
  isTold = true;
  wake();
}

function listen() {
  events?.close();
  isOpen = false;
  if (document.hidden) {
    return;
  }
  events = new EventSource("/api/v1/changes");
  events.onmessage = told;
  events.onopen = () => {
    isOpen = true;
    told();
  };
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) {
      setTimeout(listen, LONGEST_MS); // not let in, or too many listen
    }
    if (isOpen) {
      isOpen = false;
      told();
    }
  };
}

function pause(milliseconds) {
  return new Promise((resolve) => {
    wake = resolve;
    setTimeout(resolve, isTold ? 0 : milliseconds);
  });
}

async function keepFresh() {
  let wait = PERIOD_MS;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, REST_MS));
    await pause(wait);
    isTold = false;
    if (document.hidden) {
      continue;
    }
    try {
      await refresh();
      wait = isOpen ? TOLD_MS : PERIOD_MS;
      document.getElementById("lost").hidden = true;
    } catch {
      wait = Math.min(wait * 2, LONGEST_MS);
      document.getElementById("lost").hidden = false;
    }
  }
}

document.addEventListener("visibilitychange", listen);
listen();
keepFresh();
