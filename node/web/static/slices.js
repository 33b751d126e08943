// Leafs through the slices of a result without loading the page again. Pictures that were shown
// stay in memory for a while, neighbours are fetched ahead; whoever moves fast skips some.
"use strict";

const KEPT = 240; // pictures
const AHEAD = 3; // slices

const pictures = new Map();

function picture(address) {
  let found = pictures.get(address);
  pictures.delete(address);
  if (found === undefined) {
    const image = new Image();
    image.src = address;
    found = image.decode().then(() => image);
    found.catch(() => pictures.delete(address));
  }
  pictures.set(address, found);
  if (pictures.size > KEPT) {
    pictures.delete(pictures.keys().next().value);
  }
  return found;
}

const slider = (plane) => plane.querySelector("input[type=range]");
const form = (plane) => plane.closest("form");

function addresses(plane, number) {
  const said = new FormData(form(plane));
  const version = `v=${form(plane).dataset.version}`;
  const one = `${plane.dataset.url}/${number}`;
  const labels = said.getAll("label").map((label) => `label=${label}`);
  const over = labels.length ? labels : ["label=0"];
  return {
    grey: `${one}?${version}&sequence=${said.get("sequence")}`,
    over: `${one}/labels?${version}&${over.join("&")}`,
  };
}

function put(plane, kind, image) {
  const old = plane.querySelector(`img.${kind}`);
  if (old === image) {
    return;
  }
  for (const { name, value } of old.attributes) {
    if (name !== "src") {
      image.setAttribute(name, value);
    }
  }
  old.replaceWith(image);
}

function words(plane) {
  const { value, max } = slider(plane);
  plane.querySelector("output").value = `${value} of ${max}`;
  const chosen = form(plane).querySelector("input[name=sequence]:checked");
  plane.querySelector("img.grey").alt =
    `${plane.dataset.name} slice ${value} of ${max}, ${chosen.dataset.word}`;
}

// Marks at the borders of each picture where the two other planes cut it.
function marks(own) {
  const planes = Object.fromEntries(
    Array.from(own.querySelectorAll(".plane"), (plane) => [plane.dataset.view, plane]),
  );
  const share = (view) => (slider(planes[view]).value - 0.5) / slider(planes[view]).max;
  const [top, back, left] = [1 - share("axial"), share("coronal"), share("sagittal")];
  const places = { axial: [left, back], coronal: [left, top], sagittal: [back, top] };
  for (const [view, [x, y]] of Object.entries(places)) {
    const svg = planes[view].querySelector("svg");
    const { width, height } = svg.viewBox.baseVal;
    for (const line of svg.querySelectorAll("line")) {
      const isUpright = line.classList.contains("upright");
      for (const end of isUpright ? ["x1", "x2"] : ["y1", "y2"]) {
        line.setAttribute(end, isUpright ? x * width : y * height);
      }
    }
  }
}

const busy = new WeakSet();

async function follow(plane) {
  marks(form(plane));
  words(plane);
  if (busy.has(plane)) {
    return;
  }
  busy.add(plane);
  try {
    let shown = "";
    for (;;) {
      const { grey, over } = addresses(plane, slider(plane).value);
      if (shown === grey + over) {
        break;
      }
      const [below, above] = await Promise.all([picture(grey), picture(over)]);
      put(plane, "grey", below);
      put(plane, "over", above);
      words(plane);
      shown = grey + over;
    }
    lookAhead(plane);
  } catch {
    // The node does not answer, or the result is another one by now; the page says so itself.
  } finally {
    busy.delete(plane);
  }
}

function lookAhead(plane) {
  const { value, max } = slider(plane);
  for (let step = 1; step <= AHEAD; step += 1) {
    for (const number of [Number(value) + step, Number(value) - step]) {
      if (number >= 1 && number <= Number(max)) {
        const { grey, over } = addresses(plane, number);
        picture(grey);
        picture(over);
      }
    }
  }
}

function move(plane, number) {
  const input = slider(plane);
  input.value = number; // the browser keeps it within bounds
  follow(plane);
}

document.addEventListener("input", (event) => {
  const own = event.target.closest("#slices form");
  if (own === null) {
    return;
  }
  const plane = event.target.closest(".plane");
  for (const one of plane === null ? own.querySelectorAll(".plane") : [plane]) {
    follow(one);
  }
});

// A click in a picture moves the two other planes there.
document.addEventListener("click", (event) => {
  const stack = event.target.closest("#slices .stack");
  if (stack === null) {
    return;
  }
  const plane = stack.closest(".plane");
  const svg = plane.querySelector("svg");
  const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
  const { width, height } = svg.viewBox.baseVal;
  const x = Math.min(Math.max(at.x / width, 0), 1);
  const y = Math.min(Math.max(at.y / height, 0), 1);
  const shares = {
    axial: { sagittal: x, coronal: y },
    coronal: { sagittal: x, axial: 1 - y },
    sagittal: { coronal: x, axial: 1 - y },
  }[plane.dataset.view];
  for (const [view, share] of Object.entries(shares)) {
    const other = form(plane).querySelector(`.plane[data-view=${view}]`);
    move(other, Math.floor(share * slider(other).max) + 1);
  }
  slider(plane).focus({ preventScroll: true });
});

// The wheel leafs in a picture whose slider has the focus; elsewhere it scrolls the page.
document.addEventListener(
  "wheel",
  (event) => {
    const plane = event.target.closest("#slices .stack")?.closest(".plane");
    if (plane && document.activeElement === slider(plane) && event.deltaY) {
      event.preventDefault();
      move(plane, Number(slider(plane).value) - Math.sign(event.deltaY));
    }
  },
  { passive: false },
);
